//! Texts that errors point into: experiment files and command-line arguments, and places in them.

use std::{fmt, io::Read, ops::Range, path::Path, sync::Arc};

use miette::NamedSource;

use crate::error::{ErrorKind, ExperimentError, Position};

/// Name of what is written on the command line.
pub(crate) const COMMAND_LINE: &str = "command line";

/// Largest experiment file that is read.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// What a file is, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// In one word, also the beginning of error codes.
    pub word: &'static str,
    /// As messages call it, with its article.
    pub name: &'static str,
    /// The smallest useful one.
    pub smallest: &'static str,
    /// How settings are shared without anchors and aliases.
    pub sharing: &'static str,
}

impl Sort {
    /// The name without its article.
    fn bare(&self) -> &'static str {
        self.name.split_once(' ').map_or(self.name, |(_, bare)| bare)
    }
}

/// An experiment file, or an argument of the command line.
pub(crate) const EXPERIMENT: Sort = Sort {
    word: "experiment",
    name: "an experiment file",
    smallest: "an experiment needs at least `extends:` and one of `axes:`, `zip:` or `variants:`",
    sharing: "use `extends:` to share settings between files",
};

/// A text with a name.
pub struct Source {
    pub(crate) code: NamedSource<Arc<str>>,
    pub(crate) sort: Sort,
    text: Arc<str>,
}

impl Source {
    /// A text that is not a file, such as a command-line argument.
    pub(crate) fn inline(name: &str, text: &str) -> Arc<Self> {
        Self::named(EXPERIMENT, text.into(), name)
    }

    /// Reads an experiment file; `shown` is the path as people wrote it.
    pub(crate) fn read(path: &Path, shown: &str) -> Result<Arc<Self>, ExperimentError> {
        Self::read_as(EXPERIMENT, path, shown)
    }

    /// Reads a file of some sort.
    pub(crate) fn read_as(sort: Sort, path: &Path, shown: &str) -> Result<Arc<Self>, ExperimentError> {
        let what = sort.name;
        let file = |kind, message: String| ExperimentError::file(kind, message).sort(sort);
        let unreadable = |error: std::io::Error| {
            let (kind, message) = match error.kind() {
                std::io::ErrorKind::NotFound => (ErrorKind::Missing, format!("no {} `{shown}`", sort.bare())),
                _ => (ErrorKind::Unreadable, format!("cannot read `{shown}`: {error}")),
            };
            file(kind, message).help_opt(similar_file(path))
        };
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if metadata.is_dir() {
            let message = format!("`{shown}` is a folder, not {what}");
            let listed = yaml_files(path);
            let error = file(ErrorKind::Unreadable, message);
            return Err(if listed.is_empty() {
                error.help("name a .yaml file")
            } else {
                error.help(format!("files in it: {}", listed.join(", ")))
            });
        }
        if !metadata.is_file() {
            let message = format!("`{shown}` is neither a file nor a folder");
            return Err(file(ErrorKind::Unreadable, message).help("name a .yaml file"));
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(unreadable)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            let message = format!("`{shown}` has {} bytes, more than {what} may have", metadata.len());
            return Err(file(ErrorKind::TooLarge, message)
                .help(format!("the limit is {MAX_FILE_BYTES} bytes; is this {what}?")));
        }
        let text: Arc<str> = match String::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let text: Arc<str> = String::from_utf8_lossy(error.as_bytes()).into();
                let source = Self::named(sort, text, shown);
                return Err(Location::new(&source, at..at + '\u{fffd}'.len_utf8())
                    .error(ErrorKind::Syntax, format!("`{shown}` is not UTF-8 text"))
                    .label("the first wrong byte")
                    .help("save the file as UTF-8"));
            }
        };
        Ok(Self::named(sort, text, shown))
    }

    pub(crate) fn named(sort: Sort, text: Arc<str>, shown: &str) -> Arc<Self> {
        Arc::new(Self { code: NamedSource::new(shown, Arc::clone(&text)), sort, text })
    }

    /// Name shown to people.
    pub fn name(&self) -> &str {
        self.code.name()
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.name())
    }
}

/// A stretch of a text, in bytes.
#[derive(Clone, Debug)]
pub struct Location {
    pub(crate) source: Arc<Source>,
    pub(crate) span: Range<usize>,
}

impl Location {
    /// A place; the span is cut to the text and to its first line, so an excerpt stays an excerpt. Behind the end, it is the last
    /// thing written.
    pub(crate) fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        let text = source.text();
        let written = text.trim_end().len();
        if span.start >= text.len() && written > 0 {
            let start = floor_boundary(text, written - 1);
            return Self { source: Arc::clone(source), span: start..written };
        }
        let start = floor_boundary(text, span.start.min(text.len()));
        let line_end = text[start..].find('\n').map_or(text.len(), |offset| start + offset);
        let end = floor_boundary(text, span.end.clamp(start, line_end));
        Self { source: Arc::clone(source), span: start..end }
    }

    /// The text that is pointed at.
    pub fn text(&self) -> &str {
        &self.source.text()[self.span.clone()]
    }

    /// Line and column, both from 1; the column counts characters.
    pub fn line_column(&self) -> (usize, usize) {
        let before = &self.source.text()[..self.span.start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// File, line and column.
    pub(crate) fn position(&self) -> Position {
        let (line, column) = self.line_column();
        Position { file: self.source.name().to_owned(), line, column }
    }

    /// Bytes of the longest line that an excerpt around this place shows: its own or a neighbour.
    pub(crate) fn line_length(&self) -> usize {
        let (line, _) = self.line_column();
        self.source.text().lines().skip(line.saturating_sub(2)).take(3).map(str::len).max().unwrap_or(0)
    }

    /// An error that points here.
    pub(crate) fn error(&self, kind: ErrorKind, message: impl Into<String>) -> ExperimentError {
        ExperimentError::at(kind, message, self.clone())
    }
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The experiment files directly in a folder, sorted.
fn yaml_files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    names.sort();
    names
}

fn similar_file(path: &Path) -> Option<String> {
    let name = path.file_stem()?.to_str()?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names = yaml_files(folder);
    let near = crate::suggest::nearest(name, names.iter().filter_map(|name| name.strip_suffix(".yaml")))?;
    Some(format!("did you mean `{}.yaml`?", folder.join(near).display()))
}
