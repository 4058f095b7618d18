//! YAML with places: a tree in which every key and every value knows where it stands.
//!
//! The subset of an experiment file: one document of mappings, lists and scalars. Anchors, aliases and tags are refused (an alias can
//! expand without bound and hides where a value comes from), keys are unique, nesting is bounded. Plain scalars get the types that
//! `serde_yaml` gives them.

use std::{collections::HashMap, sync::Arc};

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_yaml::Value;

use crate::{
    error::{ErrorKind, ExperimentError},
    source::{Location, Source},
};

/// Deepest nesting of lists and mappings.
pub const MAX_DEPTH: usize = 32;

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub tree: Tree,
    pub at: Location,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Tree {
    /// Null, boolean, number or text.
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A mapping's key with its place.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub text: String,
    pub at: Location,
}

impl Node {
    /// Short name of the value's type, with its article.
    pub fn type_name(&self) -> &'static str {
        match &self.tree {
            Tree::Scalar(Value::Null) => "nothing",
            Tree::Scalar(Value::Bool(_)) => "a boolean",
            Tree::Scalar(Value::Number(_)) => "a number",
            Tree::Scalar(_) => "text",
            Tree::List(_) => "a list",
            Tree::Map(_) => "a mapping",
        }
    }

    /// Whether it is `null` or an empty list, which take something inherited away.
    pub fn is_nothing(&self) -> bool {
        match &self.tree {
            Tree::Scalar(value) => value.is_null(),
            Tree::List(items) => items.is_empty(),
            Tree::Map(_) => false,
        }
    }

    /// The entries of a mapping.
    pub fn map(&self, name: &str) -> Result<&[(Key, Node)], ExperimentError> {
        match &self.tree {
            Tree::Map(entries) => Ok(entries),
            _ => Err(self.wrong_type(name, "a mapping of keys to values")),
        }
    }

    /// The items of a list.
    pub fn list(&self, name: &str) -> Result<&[Node], ExperimentError> {
        match &self.tree {
            Tree::List(items) => Ok(items),
            _ => Err(self.wrong_type(name, "a list")),
        }
    }

    /// The text of a scalar that is text.
    pub fn text(&self, name: &str) -> Result<&str, ExperimentError> {
        match &self.tree {
            Tree::Scalar(Value::String(text)) => Ok(text),
            _ => Err(self.wrong_type(name, "text")),
        }
    }

    /// The error that something else was expected here.
    pub fn wrong_type(&self, name: &str, expected: &str) -> ExperimentError {
        self.at
            .error(ErrorKind::WrongType, format!("`{name}` must be {expected}, not {}", self.type_name()))
            .label(format!("expected {expected}"))
    }

    /// The plain value, without places.
    pub fn value(&self) -> Value {
        match &self.tree {
            Tree::Scalar(value) => value.clone(),
            Tree::List(items) => Value::Sequence(items.iter().map(Node::value).collect()),
            Tree::Map(entries) => Value::Mapping(
                entries.iter().map(|(key, node)| (Value::String(key.text.clone()), node.value())).collect(),
            ),
        }
    }
}

/// The type of an unquoted scalar.
pub(crate) fn plain_scalar(text: &str) -> Value {
    match serde_yaml::from_str::<Value>(text) {
        Ok(value @ (Value::Null | Value::Bool(_) | Value::Number(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

/// A collection that is still open.
enum Open {
    List(usize, Vec<Node>),
    Map(usize, Entries, Option<Key>),
}

/// Entries of a mapping, and where each key is: a file full of keys must not cost quadratic time.
#[derive(Default)]
struct Entries {
    list: Vec<(Key, Node)>,
    index: HashMap<String, usize>,
}

struct Builder<'a> {
    source: &'a Arc<Source>,
    /// Byte offset of every character, and of the end; the parser counts characters.
    offsets: Option<Vec<u32>>,
    open: Vec<Open>,
    root: Option<Node>,
}

/// Parses one document.
pub(crate) fn parse(source: &Arc<Source>) -> Result<Node, ExperimentError> {
    parse_as(source, source.text())
}

/// Parses `text` instead of the source's own; places are taken in the source at the same bytes.
pub(crate) fn parse_as(source: &Arc<Source>, text: &str) -> Result<Node, ExperimentError> {
    let offsets = (!text.is_ascii())
        .then(|| text.char_indices().map(|(byte, _)| byte as u32).chain([text.len() as u32]).collect());
    let mut builder = Builder { source, offsets, open: Vec::new(), root: None };
    let mut parser = Parser::new_from_str(text);
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let at = builder.byte(error.marker().index());
            Location::new(source, at..at + 1)
                .error(ErrorKind::Syntax, format!("not valid YAML: {}", error.info()))
                .label("the parser stopped here")
        })?;
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(builder
                        .location(span)
                        .error(ErrorKind::Syntax, "a second document starts here")
                        .help(format!("{} is one YAML document: remove the `---`", source.sort.name)));
                }
            }
            Event::StreamEnd => break,
            other => builder.take(other, span)?,
        }
    }
    builder.root.ok_or_else(|| {
        Location::new(source, 0..0)
            .error(ErrorKind::Syntax, format!("`{}` is empty", source.name()))
            .help(source.sort.smallest)
    })
}

impl Builder<'_> {
    fn byte(&self, character: usize) -> usize {
        match &self.offsets {
            None => character,
            Some(offsets) => offsets.get(character).or(offsets.last()).map_or(0, |&byte| byte as usize),
        }
    }

    fn location(&self, span: Span) -> Location {
        let (start, end) = (self.byte(span.start.index()), self.byte(span.end.index()));
        Location::new(self.source, start..end.max(start + 1))
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), ExperimentError> {
        let refused = |this: &Self, what: &str| {
            this.location(span)
                .error(ErrorKind::Syntax, format!("{what} are not part of the {} format", this.source.sort.word))
                .label("write the value out here")
                .help(this.source.sort.sharing)
        };
        match event {
            Event::Alias(_) => return Err(refused(self, "aliases")),
            Event::Scalar(_, _, anchor, _) | Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                return Err(refused(self, "anchors"));
            }
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                return Err(refused(self, "tags"));
            }
            Event::Scalar(text, style, ..) => {
                let at = self.location(span);
                if let Some(Open::Map(_, _, key @ None)) = self.open.last_mut() {
                    *key = Some(Key { text: text.into_owned(), at });
                    return Ok(());
                }
                let value = match style {
                    ScalarStyle::Plain => plain_scalar(&text),
                    _ => Value::String(text.into_owned()),
                };
                self.close(Node { tree: Tree::Scalar(value), at })?;
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                let start = self.byte(span.start.index());
                if let Some(Open::Map(_, _, None)) = self.open.last() {
                    return Err(self
                        .location(span)
                        .error(ErrorKind::Syntax, "a key must be text, not a list or a mapping")
                        .help("quote the key, or check the indentation"));
                }
                if self.open.len() == MAX_DEPTH {
                    return Err(self
                        .location(span)
                        .error(ErrorKind::TooDeep, format!("nested deeper than {MAX_DEPTH} levels"))
                        .label(format!("level {}", MAX_DEPTH + 1)));
                }
                self.open.push(match event {
                    Event::SequenceStart(..) => Open::List(start, Vec::new()),
                    _ => Open::Map(start, Entries::default(), None),
                });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let end = self.byte(span.end.index());
                let place = |start: usize| Location::new(self.source, start..end.max(start + 1));
                let node = match self.open.pop() {
                    Some(Open::List(start, items)) => Node { tree: Tree::List(items), at: place(start) },
                    Some(Open::Map(start, entries, _)) => Node { tree: Tree::Map(entries.list), at: place(start) },
                    None => return Ok(()),
                };
                self.close(node)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn close(&mut self, node: Node) -> Result<(), ExperimentError> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, pending)) => {
                if let Some(key) = pending.take() {
                    if let Some(&first) = entries.index.get(&key.text) {
                        let (first, _) = &entries.list[first];
                        return Err(key
                            .at
                            .error(ErrorKind::DuplicateKey, format!("`{}` is written twice", key.text))
                            .label("again here")
                            .also(&first.at, "first here")
                            .help("keep one of the two"));
                    }
                    entries.index.insert(key.text.clone(), entries.list.len());
                    entries.list.push((key, node));
                }
            }
        }
        Ok(())
    }
}
