//! Annotation files: JSON lists of objects, read as a stream so that memory holds the entries in use and no file has to fit.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::{DataError, json};

/// Where a file's entries stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The file is the list.
    Whole,
    /// The list is the field of this name of an object.
    Under(&'static str),
    /// The file is an object of entries; each entry's name there becomes its field of this name.
    Named(&'static str),
    /// The file is a list of lists; their values, in order, become the fields of these names.
    Rows(&'static [&'static str]),
    /// The file has one entry after the other, mostly a line each.
    Lines,
}

/// Whether reading goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// There may be more.
    More,
    /// What was looked for is found; the rest of the file is not looked at.
    Enough,
}

/// One object of a list, with its place for error messages.
pub(crate) struct Entry<'a> {
    path: &'a Path,
    number: usize,
    fields: Map<String, Value>,
}

impl Entry<'_> {
    /// An error about this entry.
    pub(crate) fn error(&self, reason: impl Into<String>) -> DataError {
        DataError::Entry { path: self.path.to_owned(), number: self.number, reason: reason.into() }
    }

    /// A field as it is; `None` where it is absent or null.
    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    fn need(&self, field: &str) -> Result<&Value, DataError> {
        self.get(field).ok_or_else(|| self.error(format!("field `{field}` is missing")))
    }

    /// A text.
    pub(crate) fn text(&self, field: &str) -> Result<&str, DataError> {
        let value = self.need(field)?;
        value.as_str().ok_or_else(|| self.error(format!("`{field}` is {}, not a text", brief(value))))
    }

    /// An identity: a whole number, or a text. Both forms of one number are the same.
    pub(crate) fn id(&self, field: &str) -> Result<String, DataError> {
        match self.need(field)? {
            Value::Number(number) if number.is_u64() || number.is_i64() => Ok(number.to_string()),
            Value::String(text) if !text.is_empty() => Ok(text.clone()),
            other => Err(self.error(format!("`{field}` is {}, neither a whole number nor a text", brief(other)))),
        }
    }

    /// A whole number.
    pub(crate) fn number(&self, field: &str) -> Result<u64, DataError> {
        let value = self.need(field)?;
        value.as_u64().ok_or_else(|| self.error(format!("`{field}` is {}, not a whole number", brief(value))))
    }

    /// A list of texts, at least one.
    pub(crate) fn texts(&self, field: &str) -> Result<Vec<String>, DataError> {
        self.list(field, |value| value.as_str(), "texts")
    }

    /// A list of objects, at least one, and the text that each holds under `key`.
    pub(crate) fn texts_within(&self, field: &str, key: &str) -> Result<Vec<String>, DataError> {
        self.list(field, |value| value.get(key)?.as_str(), &format!("objects with a text `{key}`"))
    }

    fn list(&self, field: &str, text: impl Fn(&Value) -> Option<&str>, holds: &str) -> Result<Vec<String>, DataError> {
        let value = self.need(field)?;
        let wrong = || self.error(format!("`{field}` is {}, not a list of {holds}", brief(value)));
        let list = value.as_array().filter(|list| !list.is_empty()).ok_or_else(wrong)?;
        list.iter().map(|value| text(value).map(str::to_owned)).collect::<Option<_>>().ok_or_else(wrong)
    }

    /// The image file that `image` names, below `folder`.
    pub(crate) fn image(&self, folder: &Path) -> Result<PathBuf, DataError> {
        self.file("image", folder, self.text("image")?)
    }

    /// A file below `folder` that `field` names; a name from a file is never followed out of the folder.
    pub(crate) fn file(&self, field: &str, folder: &Path, name: &str) -> Result<PathBuf, DataError> {
        let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if name.is_empty() || !Path::new(name).components().all(inside) {
            return Err(self.error(format!("`{field}` is `{name}`, not a path below `{}`", folder.display())));
        }
        Ok(folder.join(name))
    }
}

/// A value in a few characters.
fn brief(value: &Value) -> String {
    const MOST: usize = 40;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("`{}...`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// Hands the wanted entries of a file to `take`, in file order. A byte-order mark at its beginning is passed over.
/// `wanted` sees positions counted from 0; entries that are not wanted are passed over. Returns the number of entries seen.
///
/// # Errors
/// A file that cannot be read, is not such a list, or an error of `take`.
pub(crate) fn each(
    path: &Path,
    place: Place,
    wanted: &dyn Fn(usize) -> bool,
    take: &mut dyn FnMut(Entry<'_>) -> Result<Next, DataError>,
) -> Result<usize, DataError> {
    let unread = |source| DataError::Read { path: path.to_owned(), source };
    let mut list = List { path, wanted, take, seen: 0, stopped: None };
    let mut json = serde_json::Deserializer::from_reader(json::open(path)?);
    let read = match place {
        Place::Whole => list.deserialize(&mut json),
        Place::Under(key) => Keyed { key, list: &mut list }.deserialize(&mut json),
        Place::Named(field) => json.deserialize_map(Named { field, list: &mut list }),
        Place::Rows(names) => json.deserialize_seq(Rows { names, list: &mut list }),
        Place::Lines => list.lines(&mut json),
    };
    let read = if place == Place::Lines { read } else { read.and_then(|()| json.end()) };
    let (seen, stopped) = (list.seen, list.stopped.take());
    match (stopped, read) {
        (Some(Err(error)), _) => Err(error),
        (Some(Ok(())), _) | (None, Ok(())) => Ok(seen),
        (None, Err(error)) if error.is_io() => Err(unread(error.into())),
        (None, Err(error)) => Err(DataError::Json { path: path.to_owned(), after: seen, reason: error.to_string() }),
    }
}

/// The list itself.
struct List<'a> {
    path: &'a Path,
    wanted: &'a dyn Fn(usize) -> bool,
    take: &'a mut dyn FnMut(Entry<'_>) -> Result<Next, DataError>,
    seen: usize,
    /// Why reading ended before the list did.
    stopped: Option<Result<(), DataError>>,
}

impl<'de> DeserializeSeed<'de> for &mut List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        loop {
            if !(self.wanted)(self.seen) {
                match sequence.next_element::<IgnoredAny>()? {
                    Some(_) => self.seen += 1,
                    None => return Ok(()),
                }
                continue;
            }
            let Some(fields) = sequence.next_element::<Map<String, Value>>()? else { return Ok(()) };
            self.take(fields)?;
        }
    }
}

impl List<'_> {
    /// Reads entries that follow each other.
    fn lines<'de, R: serde_json::de::Read<'de>>(
        &mut self,
        json: &mut serde_json::Deserializer<R>,
    ) -> Result<(), serde_json::Error> {
        loop {
            if json.end().is_ok() {
                return Ok(());
            }
            let fields = Map::<String, Value>::deserialize(&mut *json)?;
            self.take(fields)?;
        }
    }

    /// Hands on one entry; an error ends the reading, for a reason that `stopped` holds.
    fn take<E: serde::de::Error>(&mut self, fields: Map<String, Value>) -> Result<(), E> {
        self.seen += 1;
        self.stopped = match (self.take)(Entry { path: self.path, number: self.seen, fields }) {
            Ok(Next::More) => return Ok(()),
            Ok(Next::Enough) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        };
        Err(E::custom("stopped"))
    }
}

/// Entries that are the fields of an object.
struct Named<'l, 'a> {
    field: &'static str,
    list: &'l mut List<'a>,
}

impl<'de> Visitor<'de> for Named<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of entries")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let mut fields = map.next_value::<Map<String, Value>>()?;
            fields.insert(self.field.to_owned(), Value::String(name));
            self.list.take(fields)?;
        }
        Ok(())
    }
}

/// Entries that are lists of values.
struct Rows<'l, 'a> {
    names: &'static [&'static str],
    list: &'l mut List<'a>,
}

impl<'de> Visitor<'de> for Rows<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of lists")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let Self { names, list } = self;
        loop {
            if !(list.wanted)(list.seen) {
                match sequence.next_element::<IgnoredAny>()? {
                    Some(_) => list.seen += 1,
                    None => return Ok(()),
                }
                continue;
            }
            let Some(values) = sequence.next_element::<Vec<Value>>()? else { return Ok(()) };
            if values.len() != names.len() {
                let (found, named) = (values.len(), names.join(", "));
                return Err(A::Error::custom(format!("expected the {} values {named}, found {found}", names.len())));
            }
            list.take(names.iter().map(|name| (*name).to_owned()).zip(values).collect())?;
        }
    }
}

/// A list under a key of an object.
struct Keyed<'l, 'a> {
    key: &'static str,
    list: &'l mut List<'a>,
}

impl<'de> DeserializeSeed<'de> for Keyed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Keyed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with a list `{}`", self.key)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == self.key {
                found = true;
                map.next_value_seed(&mut *self.list)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if found { Ok(()) } else { Err(A::Error::custom(format!("there is no list `{}`", self.key))) }
    }
}
