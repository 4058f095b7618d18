//! JSON files of other programs: where the text begins, and what a file is before it is read as something.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use ressa_experiment::json::BYTE_ORDER_MARK;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::DataError;

/// Field names of an object that are kept; a map of a million questions is recognised by the first.
const KEPT_FIELDS: usize = 32;

/// A file opened for reading after its byte-order mark.
///
/// # Errors
/// [`DataError::Read`].
pub(crate) fn open(path: &Path) -> Result<impl Read + use<>, DataError> {
    let unread = |source| DataError::Read { path: path.to_owned(), source };
    if !path.metadata().map_err(unread)?.is_file() {
        // A pipe would never end.
        return Err(unread(std::io::Error::other("it is not a regular file")));
    }
    let mut reader = BufReader::with_capacity(1 << 16, File::open(path).map_err(unread)?);
    if reader.fill_buf().map_err(unread)?.starts_with(BYTE_ORDER_MARK) {
        reader.consume(BYTE_ORDER_MARK.len());
    }
    Ok(reader)
}

/// What a JSON file holds at its top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Top {
    /// A list.
    List,
    /// An object with these fields.
    Object(BTreeMap<String, Field>),
    /// A single value, or nothing that is JSON.
    Other,
}

/// What a field of the top object holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// A text.
    Text(String),
    /// A list.
    List,
    /// An object with these field names.
    Object(Vec<String>),
    /// Anything else.
    Other,
}

impl Top {
    /// Looks at a file. A list is known by its first character; an object is read through, one value at a time.
    ///
    /// # Errors
    /// [`DataError::Read`]; a file that is broken somewhere is what it is until there.
    pub(crate) fn of(path: &Path) -> Result<Self, DataError> {
        let unread = |source| DataError::Read { path: path.to_owned(), source };
        let mut reader = BufReader::new(open(path)?);
        loop {
            let start = reader.fill_buf().map_err(unread)?;
            let blanks = start.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            match start.get(blanks) {
                Some(b'[') => return Ok(Top::List),
                Some(b'{') => break,
                Some(_) => return Ok(Top::Other),
                None if start.is_empty() => return Ok(Top::Other),
                None => reader.consume(blanks),
            }
        }
        let mut fields = BTreeMap::new();
        let mut json = serde_json::Deserializer::from_reader(reader);
        match json.deserialize_map(&mut Fields(&mut fields)) {
            Err(error) if error.is_io() => Err(unread(error.into())),
            // What is wrong with the text is said, with its place, by whoever reads the entries.
            _ => Ok(Top::Object(fields)),
        }
    }

    /// Whether a field of the top object is a list.
    pub(crate) fn has_list(&self, name: &str) -> bool {
        matches!(self, Top::Object(fields) if fields.get(name) == Some(&Field::List))
    }

    /// A text of the top object.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self {
            Top::Object(fields) => match fields.get(name) {
                Some(Field::Text(text)) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the top object maps names to objects that have a field.
    pub(crate) fn maps_to(&self, field: &str) -> bool {
        let has = |value: &Field| matches!(value, Field::Object(names) if names.iter().any(|name| name == field));
        matches!(self, Top::Object(fields) if !fields.is_empty() && fields.values().all(has))
    }
}

/// For messages: `a list`, `an object with the fields ...`.
impl fmt::Display for Top {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Top::List => f.write_str("a list"),
            Top::Object(fields) if fields.is_empty() => f.write_str("an object without fields"),
            Top::Object(fields) => {
                const NAMED: usize = 5;
                let names: Vec<String> = fields.keys().take(NAMED).map(|name| format!("`{name}`")).collect();
                let more = if fields.len() > NAMED { ", ..." } else { "" };
                write!(f, "an object with the fields {}{more}", names.join(", "))
            }
            Top::Other => f.write_str("neither a list nor an object"),
        }
    }
}

/// Collects the fields of the top object.
struct Fields<'a>(&'a mut BTreeMap<String, Field>);

impl<'de> Visitor<'de> for &mut Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let field = map.next_value_seed(Look)?;
            if self.0.len() < KEPT_FIELDS {
                self.0.insert(name, field);
            }
        }
        Ok(())
    }
}

/// What a value is, without holding it.
struct Look;

impl<'de> DeserializeSeed<'de> for Look {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Field, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value::<IgnoredAny>()?;
            if names.len() < KEPT_FIELDS {
                names.push(name);
            }
        }
        Ok(Field::Object(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(text: &[u8]) -> Top {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Top::of(file.path()).unwrap()
    }

    #[test]
    fn a_file_is_known_by_its_top() {
        assert_eq!(top(b"\xef\xbb\xbf \n [1]"), Top::List);
        assert_eq!(top(b""), Top::Other);
        assert_eq!(top(b"version https://git-lfs"), Top::Other);
        let questions = top(br#"{"info": {"a": 1}, "data_subtype": "val2014", "n": null, "questions": [{}]}"#);
        assert!(questions.has_list("questions") && !questions.has_list("info") && !questions.maps_to("a"));
        assert_eq!(questions.text("data_subtype"), Some("val2014"));
        assert_eq!(questions.to_string(), "an object with the fields `data_subtype`, `info`, `n`, `questions`");
        assert!(top(br#"{"1": {"question": "a"}, "2": {"question": "b"}}"#).maps_to("question"));
        assert!(top(br#"{"annotations": [1], "broken"#).has_list("annotations"));
    }
}
