//! Values on the command line: YAML's flow syntax, with commas between several values.
//!
//! `0.5,0.6` and `[0.5, 0.6]` are two values, `"A photo, in detail"` is one. Texts are the exception that people expect: without quotes they
//! are taken as they stand (`Question: {} Short answer:`), but a comma in them is refused, because it could mean either.

use std::sync::Arc;

use serde_yaml::Value;

use crate::{
    error::{ErrorKind, ExperimentError},
    source::{Location, Source},
    yaml::{self, Node, Tree, plain_scalar},
};

/// How the text behind `=` is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Words and numbers; several are several values.
    Plain,
    /// Free text.
    Text,
    /// A list is one value; `texts` where its items are free text.
    List { texts: bool },
}

/// The values behind the `=` that ends at `start`, each with its place; at least one.
pub(crate) fn values(source: &Arc<Source>, start: usize, reading: Reading) -> Result<Vec<Node>, ExperimentError> {
    let raw = Raw::new(source, start);
    let is_quoted = raw.text.starts_with(['"', '\'']);
    let is_bracketed = raw.text.starts_with('[');
    match reading {
        Reading::Text if !is_quoted && !is_bracketed => Ok(vec![raw.free()?]),
        _ if raw.text.is_empty() => {
            let error = raw
                .whole()
                .error(ErrorKind::Override, format!("`{}` has no value", raw.path()))
                .label("expected a value after `=`");
            Err(if matches!(reading, Reading::List { .. }) {
                error.help(format!("write `{}=[]` for an empty list", raw.path()))
            } else {
                error
            })
        }
        Reading::List { texts } => {
            let items = if texts && !is_quoted && !is_bracketed { raw.pieces()? } else { raw.parse()? };
            Ok(lists(items, raw.at()))
        }
        Reading::Plain | Reading::Text => {
            let items = match raw.parse()?.as_mut_slice() {
                [Node { tree: Tree::List(items), .. }] => std::mem::take(items),
                items => items.iter_mut().map(take).collect(),
            };
            if items.is_empty() {
                let message = format!("`{}` has no value", raw.path());
                return Err(raw.at().error(ErrorKind::Override, message).label("an empty list"));
            }
            Ok(items)
        }
    }
}

/// Values of a setting whose values are lists: `a,b` and `[a, b]` are one, `[a, b],[c]` and `[[a, b], [c]]` two.
fn lists(mut items: Vec<Node>, at: Location) -> Vec<Node> {
    // `null` is the value itself, no list of one.
    if matches!(items.as_slice(), [Node { tree: Tree::Scalar(Value::Null), .. }]) {
        return items;
    }
    let is_list = |node: &Node| matches!(node.tree, Tree::List(_));
    if let [Node { tree: Tree::List(inner), .. }] = items.as_slice() {
        return if !inner.is_empty() && inner.iter().all(is_list) { inner.clone() } else { vec![items.remove(0)] };
    }
    if items.iter().all(is_list) { items } else { vec![Node { tree: Tree::List(items), at }] }
}

fn take(node: &mut Node) -> Node {
    Node { tree: std::mem::replace(&mut node.tree, Tree::List(Vec::new())), at: node.at.clone() }
}

/// The text behind `=`, without blanks around it.
struct Raw<'a> {
    source: &'a Arc<Source>,
    /// Byte behind `=`.
    start: usize,
    /// First byte of `text`.
    begin: usize,
    text: &'a str,
}

impl<'a> Raw<'a> {
    fn new(source: &'a Arc<Source>, start: usize) -> Self {
        let behind = &source.text()[start..];
        let text = behind.trim();
        Self { source, start, begin: start + (behind.len() - behind.trim_start().len()), text }
    }

    fn path(&self) -> &'a str {
        self.source.text()[..self.start].trim_end_matches('=').trim()
    }

    fn at(&self) -> Location {
        Location::new(self.source, self.begin..self.begin + self.text.len())
    }

    fn whole(&self) -> Location {
        Location::new(self.source, 0..self.source.text().len())
    }

    /// One text as it stands; `12`, `true` and `null` keep the types that YAML gives them.
    fn free(&self) -> Result<Node, ExperimentError> {
        if self.text.contains(',') {
            return Err(self.ambiguous());
        }
        let value = match self.text {
            "" => Value::String(String::new()),
            text => plain_scalar(text),
        };
        Ok(Node { tree: Tree::Scalar(value), at: if self.text.is_empty() { self.whole() } else { self.at() } })
    }

    /// Words between commas, as they stand.
    fn pieces(&self) -> Result<Vec<Node>, ExperimentError> {
        let pieces: Vec<&str> = self.text.split(',').collect();
        if pieces.len() > 1 && pieces.iter().any(|piece| piece.trim().contains(char::is_whitespace)) {
            return Err(self.ambiguous());
        }
        let mut at = self.begin;
        let mut nodes = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let text = piece.trim();
            let begin = at + (piece.len() - piece.trim_start().len());
            at += piece.len() + 1;
            if text.is_empty() {
                let message = format!("`{}` has an empty item", self.path());
                return Err(self.at().error(ErrorKind::Override, message).help("write `\"\"` for an empty text"));
            }
            let at = Location::new(self.source, begin..begin + text.len());
            nodes.push(Node { tree: Tree::Scalar(plain_scalar(text)), at });
        }
        Ok(nodes)
    }

    /// The items that YAML sees between brackets.
    fn parse(&self) -> Result<Vec<Node>, ExperimentError> {
        // The bracket takes the place of `=`, so that the places of items are those in the argument.
        let text = format!("{}[{}]", " ".repeat(self.start - 1), &self.source.text()[self.start..]);
        let help = || format!("a text with marks of its own goes in quotes: `'{}=\"...\"'`", self.path());
        let root = yaml::parse_as(self.source, &text).map_err(|error| error.help(help()))?;
        match root.tree {
            Tree::List(items) => Ok(items),
            _ => Err(self.at().error(ErrorKind::Syntax, "not a list of values").help(help())),
        }
    }

    /// A comma that may be part of a text or stand between two.
    fn ambiguous(&self) -> ExperimentError {
        let (path, text) = (self.path(), quoted(self.text));
        let several: Vec<String> = self.text.split(',').map(|piece| quoted(piece.trim())).collect();
        let several = several.join(", ");
        self.at()
            .error(ErrorKind::Override, format!("a comma in `{path}` can be part of a text or stand between two"))
            .label("quotes say which")
            .help(format!(
                "write `'{path}={text}'` for one text, `'{path}=[{several}]'` for several (the outer quotes are the shell's)"
            ))
    }
}

/// A text in the quotes of YAML.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
