//! The grammar of filters: `or` binds less than `and`, which binds less than `not`; tests are `NAME OPERATOR VALUE` and `NAME in (VALUE, ...)`.

use std::{fmt, ops::Range, sync::Arc};

use crate::{
    error::{ErrorKind, ExperimentError},
    source::{Location, Source},
};

/// Deepest nesting of parentheses and `not`.
const MAX_DEPTH: usize = 64;

/// An expression over tests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr<T> {
    Test(T),
    Not(Box<Expr<T>>),
    All(Vec<Expr<T>>),
    Any(Vec<Expr<T>>),
}

/// A comparison as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Test {
    pub name: Word,
    pub relation: Relation,
    /// Whether the opposite is meant: `!=`, `!~`, `not in`.
    pub negated: bool,
    /// One value, or those of `in`.
    pub values: Vec<Word>,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Is,
    Like,
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// A name or value with its place; two words are equal if their texts are.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub text: String,
    pub at: Location,
}

impl PartialEq for Word {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// What stands between words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Open,
    Close,
    Comma,
    And,
    Or,
    Not,
    In,
    Compare(Relation, bool),
}

#[derive(Clone, Debug)]
enum Token {
    Mark(Mark),
    Bare,
    Quoted(String),
}

const MARKS: [(&str, Mark); 17] = [
    ("(", Mark::Open),
    (")", Mark::Close),
    (",", Mark::Comma),
    ("&&", Mark::And),
    ("&", Mark::And),
    ("||", Mark::Or),
    ("|", Mark::Or),
    ("!=", Mark::Compare(Relation::Is, true)),
    ("!~", Mark::Compare(Relation::Like, true)),
    ("!", Mark::Not),
    ("==", Mark::Compare(Relation::Is, false)),
    ("=", Mark::Compare(Relation::Is, false)),
    ("~", Mark::Compare(Relation::Like, false)),
    ("<=", Mark::Compare(Relation::AtMost, false)),
    ("<", Mark::Compare(Relation::Below, false)),
    (">=", Mark::Compare(Relation::AtLeast, false)),
    (">", Mark::Compare(Relation::Above, false)),
];

const KEYWORDS: [(&str, Mark); 4] = [("and", Mark::And), ("or", Mark::Or), ("not", Mark::Not), ("in", Mark::In)];

fn is_bare(c: char) -> bool {
    !c.is_whitespace() && !"(),=~<>!&|'\"".contains(c)
}

/// Reads an expression.
pub(crate) fn parse(text: &str) -> Result<Expr<Test>, ExperimentError> {
    let source = Source::inline("-E", text);
    let mut parser = Parser { tokens: tokens(&source)?, source, next: 0, depth: 0 };
    let whole = parser.expression(0)?;
    match parser.peek() {
        None => Ok(whole),
        Some(Token::Mark(Mark::Close)) => Err(parser.unexpected("a `)` that closes nothing")),
        Some(Token::Mark(Mark::Compare(..) | Mark::In)) => {
            let error = parser.unexpected("expected `and`, `or` or the end");
            Err(error.help("a value that contains such a sign goes in quotes"))
        }
        Some(_) => Err(parser.unexpected("expected `and`, `or` or the end")),
    }
}

fn tokens(source: &Arc<Source>) -> Result<Vec<(Token, Range<usize>)>, ExperimentError> {
    let text = source.text();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let (token, length) = if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        } else if c == '"' || c == '\'' {
            let (inner, length) = quoted(rest).ok_or_else(|| {
                Location::new(source, at..text.len())
                    .error(ErrorKind::Filter, "a quote that is not closed")
                    .label(format!("expected another {c}"))
            })?;
            (Token::Quoted(inner), length)
        } else if let Some((sign, mark)) = MARKS.iter().find(|(sign, _)| rest.starts_with(sign)) {
            (Token::Mark(*mark), sign.len())
        } else {
            let word = &rest[..rest.find(|c| !is_bare(c)).unwrap_or(rest.len())];
            let keyword = KEYWORDS.iter().find(|(keyword, _)| *keyword == word);
            (keyword.map_or(Token::Bare, |(_, mark)| Token::Mark(*mark)), word.len())
        };
        tokens.push((token, at..at + length));
        at += length;
    }
    Ok(tokens)
}

/// The text in quotes that another begins with, and its length with them. Within double quotes a backslash takes the next character as it is.
fn quoted(text: &str) -> Option<(String, usize)> {
    let mut characters = text.char_indices();
    let (_, quote) = characters.next()?;
    let mut inner = String::new();
    while let Some((at, c)) = characters.next() {
        match c {
            _ if c == quote => return Some((inner, at + 1)),
            '\\' if quote == '"' => inner.push(characters.next()?.1),
            _ => inner.push(c),
        }
    }
    None
}

struct Parser {
    source: Arc<Source>,
    tokens: Vec<(Token, Range<usize>)>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(token, _)| token)
    }

    fn mark(&self) -> Option<Mark> {
        match self.peek() {
            Some(Token::Mark(mark)) => Some(*mark),
            _ => None,
        }
    }

    fn eat(&mut self, mark: Mark) -> bool {
        let found = self.mark() == Some(mark);
        self.next += usize::from(found);
        found
    }

    /// The place of the next token, or behind the last one.
    fn at(&self) -> Location {
        let end = self.source.text().len();
        Location::new(&self.source, self.tokens.get(self.next).map_or(end..end, |(_, span)| span.clone()))
    }

    fn unexpected(&self, what: &str) -> ExperimentError {
        let error = match self.tokens.get(self.next) {
            Some((_, span)) => {
                let found = &self.source.text()[span.clone()];
                self.at().error(ErrorKind::Filter, format!("`{found}` is not expected here")).label(what)
            }
            None if self.tokens.is_empty() => {
                self.at().error(ErrorKind::Filter, "an empty expression").label("nothing is selected by it")
            }
            None => self.at().error(ErrorKind::Filter, "the expression ends too early").label(what),
        };
        error.help("write for example `metric = wanda and seed in (0, 1)`")
    }

    /// What binds more than `least`: 0 everything, 1 no `or`, 2 no `and` either.
    fn expression(&mut self, least: u8) -> Result<Expr<Test>, ExperimentError> {
        let mut left = self.operand()?;
        loop {
            let (mark, binds, join): (_, _, fn(Vec<_>) -> _) = match self.mark() {
                Some(Mark::Or) if least < 1 => (Mark::Or, 1, Expr::Any),
                Some(Mark::And) if least < 2 => (Mark::And, 2, Expr::All),
                _ => return Ok(left),
            };
            let mut parts = vec![left];
            // A chain is one list, so that its length costs no depth.
            while self.eat(mark) {
                parts.push(self.expression(binds)?);
            }
            left = join(parts);
        }
    }

    fn operand(&mut self) -> Result<Expr<Test>, ExperimentError> {
        if self.depth == MAX_DEPTH {
            return Err(self.at().error(ErrorKind::TooDeep, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        let operand = if self.eat(Mark::Not) {
            Expr::Not(Box::new(self.operand()?))
        } else if self.eat(Mark::Open) {
            let inner = self.expression(0)?;
            if !self.eat(Mark::Close) {
                return Err(self.unexpected("expected `and`, `or` or `)`"));
            }
            inner
        } else {
            Expr::Test(self.test()?)
        };
        self.depth -= 1;
        Ok(operand)
    }

    fn test(&mut self) -> Result<Test, ExperimentError> {
        let name = self.word(false).ok_or_else(|| self.unexpected("expected the name of an axis or setting"))?;
        let outer = self.mark() == Some(Mark::Not);
        self.next += usize::from(outer);
        let (relation, negated, list) = match self.mark() {
            Some(Mark::In) => (Relation::Is, outer, true),
            Some(Mark::Compare(relation, negated)) if !outer => (relation, negated, false),
            _ if outer => return Err(self.unexpected("expected `in`")),
            _ => return Err(self.unexpected("expected `=`, `!=`, `~`, `<`, `<=`, `>`, `>=` or `in`")),
        };
        self.next += 1;
        let mut values = Vec::new();
        if list && !self.eat(Mark::Open) {
            return Err(self.unexpected("expected `(`").help("several values stand in parentheses: `seed in (0, 1)`"));
        }
        loop {
            values.push(self.word(true).ok_or_else(|| self.unexpected("expected a value"))?);
            if !list || self.eat(Mark::Close) {
                return Ok(Test { name, relation, negated, values });
            }
            if !self.eat(Mark::Comma) {
                return Err(self.unexpected("expected `,` or `)`"));
            }
        }
    }

    /// A quoted text or a bare word; with `several`, all bare words up to the next sign, as in `pattern = 70 %`.
    fn word(&mut self, several: bool) -> Option<Word> {
        let (token, span) = self.tokens.get(self.next)?.clone();
        self.next += 1;
        let (text, span) = match token {
            Token::Quoted(text) => (text, span),
            Token::Bare => {
                let mut end = span.end;
                while let Some((Token::Bare, more)) = self.tokens.get(self.next).filter(|_| several) {
                    end = more.end;
                    self.next += 1;
                }
                (self.source.text()[span.start..end].to_owned(), span.start..end)
            }
            Token::Mark(_) => {
                self.next -= 1;
                return None;
            }
        };
        Some(Word { text, at: Location::new(&self.source, span) })
    }
}

impl<T> Expr<T> {
    /// The same over other tests.
    pub fn map<U, E>(&self, one: &mut dyn FnMut(&T) -> Result<U, E>) -> Result<Expr<U>, E> {
        Ok(match self {
            Expr::Test(test) => Expr::Test(one(test)?),
            Expr::Not(inner) => Expr::Not(Box::new(inner.map(one)?)),
            Expr::All(list) => Expr::All(list.iter().map(|inner| inner.map(one)).collect::<Result<_, _>>()?),
            Expr::Any(list) => Expr::Any(list.iter().map(|inner| inner.map(one)).collect::<Result<_, _>>()?),
        })
    }

    /// Whether it holds where `one` says which tests do.
    pub fn holds(&self, one: &dyn Fn(&T) -> bool) -> bool {
        match self {
            Expr::Test(test) => one(test),
            Expr::Not(inner) => !inner.holds(one),
            Expr::All(list) => list.iter().all(|inner| inner.holds(one)),
            Expr::Any(list) => list.iter().any(|inner| inner.holds(one)),
        }
    }
}

/// In one way, however it was written: reading it gives the same expression.
impl<T: fmt::Display> fmt::Display for Expr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inside = |inner: &Expr<T>| match inner {
            Expr::All(_) | Expr::Any(_) => format!("({inner})"),
            _ => inner.to_string(),
        };
        let joined = |list: &[Expr<T>], sign: &str| list.iter().map(inside).collect::<Vec<_>>().join(sign);
        match self {
            Expr::Test(test) => test.fmt(f),
            Expr::Not(inner) => write!(f, "not {}", inside(inner)),
            Expr::All(list) => f.write_str(&joined(list, " and ")),
            Expr::Any(list) => f.write_str(&joined(list, " or ")),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.negated { "!" } else { "" };
        match self.values.as_slice() {
            [value] => write!(f, "{} {not}{} {value}", self.name, self.relation),
            values => {
                let values: Vec<String> = values.iter().map(Word::to_string).collect();
                write!(f, "{}{} in ({})", self.name, if self.negated { " not" } else { "" }, values.join(", "))
            }
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Relation::Is => "=",
            Relation::Like => "~",
            Relation::Below => "<",
            Relation::AtMost => "<=",
            Relation::Above => ">",
            Relation::AtLeast => ">=",
        })
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_keyword = KEYWORDS.iter().any(|(keyword, _)| *keyword == self.text);
        match !self.text.is_empty() && self.text.chars().all(is_bare) && !is_keyword {
            true => f.write_str(&self.text),
            false => f.write_str(&crate::flow::quoted(&self.text)),
        }
    }
}
