//! What a rendering may take, and the operations whose results are larger than what they read.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicUsize, Ordering},
};

use minijinja::{
    Environment, Error, ErrorKind, State, Value, filters,
    value::{Kwargs, Object, ObjectRepr, StringInput},
};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Name of the filter that counts what a value holds. No template can spell it.
pub(super) const METER: &str = "@meter";
/// Name of the same filter for arguments that must be short.
pub(super) const ARGUMENT: &str = "@argument";
/// Name of the filter that multiplies.
pub(super) const TIMES: &str = "@times";

/// What a rendering may read and make in all, in bytes. A turn of a conversation takes some thousand.
const ALLOWANCE: usize = 1 << 24;
/// What an argument of a filter or a test may hold, in bytes.
const ARGUMENT_ALLOWANCE: usize = 1 << 12;
/// Bytes that a value counts for beside its text: its place in a list, and the time to look at it.
const VALUE: usize = 32;
/// Lists within lists.
const DEPTH: usize = 32;
/// Blanks before a line of indented JSON.
const INDENT: usize = 8;
/// Name under which a rendering keeps what is left of its allowance.
const LEFT: &str = "allowance";

/// Python's methods of texts, lists and maps that templates may call: those whose results are not much larger than what they read.
const METHODS: [&str; 28] = [
    "capitalize",
    "count",
    "endswith",
    "find",
    "get",
    "isalnum",
    "isalpha",
    "isascii",
    "isdigit",
    "islower",
    "isnumeric",
    "isspace",
    "isupper",
    "items",
    "join",
    "keys",
    "lower",
    "lstrip",
    "replace",
    "rfind",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "title",
    "upper",
    "values",
];

/// Filters of the engine whose results can be much larger than what they read.
const UNBOUNDED: [&str; 12] =
    ["attr", "batch", "chain", "format", "groupby", "indent", "lines", "pprint", "slice", "split", "sum", "zip"];

/// Bytes that are left.
#[derive(Debug)]
struct Allowance(AtomicUsize);

impl Object for Allowance {}

impl Allowance {
    fn take(&self, bytes: usize) -> Result<(), Error> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.map(drop).map_err(|_| refused("it makes more text than a turn of a conversation has"))
    }

    /// Takes what a value holds, each time it is in there.
    fn weigh(&self, value: &Value, depth: usize) -> Result<(), Error> {
        self.take(VALUE + value.as_str().map_or(0, str::len))?;
        let Some(object) = value.as_object() else { return Ok(()) };
        if depth == DEPTH {
            return Err(refused("its lists are in too many lists"));
        }
        match object.repr() {
            ObjectRepr::Seq => {
                object.try_iter().into_iter().flatten().try_for_each(|item| self.weigh(&item, depth + 1))
            }
            ObjectRepr::Map => object.try_iter_pairs().into_iter().flatten().try_for_each(|(key, item)| {
                self.weigh(&key, depth + 1)?;
                self.weigh(&item, depth + 1)
            }),
            ObjectRepr::Plain => Ok(()),
            _ => Err(refused("a list holds something that is computed while it is read; make a list of it")),
        }
    }

    /// The value, of which what it holds was taken. What is computed while it is read becomes a list, so that reading takes no more than that.
    fn through(&self, value: Value) -> Result<Value, Error> {
        let lazy = value.as_object().is_some_and(|object| object.repr() == ObjectRepr::Iterable);
        let value = if lazy {
            let item = |item| self.take(VALUE).map(|()| item);
            Value::from(value.try_iter()?.map(item).collect::<Result<Vec<Value>, Error>>()?)
        } else {
            value
        };
        self.weigh(&value, 0)?;
        Ok(value)
    }
}

/// Makes an environment's operations bounded.
pub(super) fn install(environment: &mut Environment<'static>) {
    for name in UNBOUNDED {
        environment.remove_filter(name);
    }
    environment.remove_global("debug");
    environment.add_filter(METER, |state: &State<'_, '_>, value: Value| allowance(state).through(value));
    environment.add_filter(ARGUMENT, argument);
    environment.add_filter(TIMES, times);
    environment.add_filter("replace", replace);
    environment.add_filter("join", join);
    environment.add_filter("trim", trim);
    environment.add_filter("tojson", tojson);
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> { Err(refused(message)) });
}

fn refused(reason: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

fn allowance(state: &State<'_, '_>) -> std::sync::Arc<Allowance> {
    state.get_or_set_temp_object(LEFT, || Allowance(AtomicUsize::new(ALLOWANCE)))
}

fn argument(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let value = allowance(state).through(value)?;
    let short = Allowance(AtomicUsize::new(ARGUMENT_ALLOWANCE)).weigh(&value, 0);
    short.map_err(|_| {
        refused(format!("an argument of a filter or a test holds more than {ARGUMENT_ALLOWANCE} bytes"))
    })?;
    Ok(value)
}

/// A product of numbers, or a text so many times.
fn times(state: &State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    let text = left.as_str().map(|text| (text, right)).or_else(|| right.as_str().map(|text| (text, left)));
    if let Some((text, count)) = text {
        let count = usize::try_from(count.clone())?;
        allowance(state).take(text.len().saturating_mul(count))?;
        return Ok(Value::from(text.repeat(count)));
    }
    if left.is_integer() && right.is_integer() {
        let product = i64::try_from(left.clone())?.checked_mul(i64::try_from(right.clone())?);
        return product.map(Value::from).ok_or_else(|| refused(format!("{left} * {right} is too large")));
    }
    Ok(Value::from(f64::try_from(left.clone())? * f64::try_from(right.clone())?))
}

/// Takes what putting `new` for every `old` adds.
fn take_replaced(state: &State<'_, '_>, text: &str, old: &str, new: &str) -> Result<(), Error> {
    allowance(state).take(text.matches(old).count().saturating_mul(new.len()))
}

/// Takes what joining a list with a text between its items adds.
fn take_joined(state: &State<'_, '_>, list: &Value, between: &str) -> Result<(), Error> {
    allowance(state).take(list.len().unwrap_or_default().saturating_mul(between.len()))
}

/// Takes the time that stripping takes, in which each character is looked for among `characters`.
fn take_stripped(state: &State<'_, '_>, text: &str, characters: &str) -> Result<(), Error> {
    /// Characters that are compared in the time in which a byte is copied.
    const AT_ONCE: usize = 8;
    allowance(state).take(text.len().saturating_mul(characters.len()) / AT_ONCE)
}

fn replace(
    state: &State<'_, '_>,
    text: StringInput<'_>,
    old: StringInput<'_>,
    new: StringInput<'_>,
) -> Result<Value, Error> {
    take_replaced(state, text.as_str(), old.as_str(), new.as_str())?;
    filters::replace(state, text, old, new)
}

fn join(state: &State<'_, '_>, list: &Value, between: Option<StringInput<'_>>) -> Result<Value, Error> {
    take_joined(state, list, between.as_ref().map_or("", StringInput::as_str))?;
    filters::join(state, list, between)
}

fn trim(state: &State<'_, '_>, text: StringInput<'_>, characters: Option<Cow<'_, str>>) -> Result<Value, Error> {
    take_stripped(state, text.as_str(), characters.as_deref().unwrap_or_default())?;
    Ok(filters::trim(text, characters))
}

fn tojson(value: &Value, indent: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => named.get("indent")?,
    };
    if indent.as_ref().and_then(Value::as_usize).is_some_and(|blanks| blanks > INDENT) {
        return Err(refused(format!("`indent` is larger than {INDENT}")));
    }
    filters::tojson(value, indent, named)
}

fn method(state: &State<'_, '_>, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let text = value.as_str().unwrap_or_default();
    let argument = |at: usize| arguments.get(at).and_then(Value::as_str).unwrap_or_default();
    match name {
        _ if !METHODS.contains(&name) => return Err(Error::from(ErrorKind::UnknownMethod)),
        "count" if value.as_str().is_some() && argument(0).is_empty() => {
            return Err(refused("`count` of an empty text is not supported"));
        }
        "replace" => take_replaced(state, text, argument(0), argument(1))?,
        "join" => arguments.first().map_or(Ok(()), |list| take_joined(state, list, text))?,
        "strip" | "lstrip" | "rstrip" => take_stripped(state, text, argument(0))?,
        _ => {}
    }
    unknown_method_callback(state, value, name, arguments)
}
