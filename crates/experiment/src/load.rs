//! From a path to one merged document: reading, extending, staying inside the experiments folder.

use std::path::{Component, Path, PathBuf};

use crate::{
    document::Document,
    error::{ErrorKind, ExperimentError},
    provenance::SourceFile,
    source::{Location, Source},
    spelling, yaml,
};

/// Longest chain of files that extend each other.
const MAX_CHAIN: usize = 16;

/// Maximum number of extended files: bases of bases multiply.
const MAX_FILES: usize = 256;

/// A merged document with the beginning of its own file.
pub(crate) struct Loaded {
    pub document: Document,
    pub start: Location,
    /// The file and its bases, as they were read.
    pub sources: Vec<SourceFile>,
}

/// Reads `path` and everything it extends; bases must lie below `root`.
pub(crate) fn load(path: &Path, root: &Path) -> Result<Loaded, ExperimentError> {
    let mut files = Files::default();
    let (document, start) = read(path, path, &path.display().to_string(), root, &mut files)?;
    document.check_removals()?;
    Ok(Loaded { document, start, sources: files.sources })
}

/// Files on the way to the one being read.
#[derive(Default)]
struct Files {
    /// Path and how it is shown, from the file that was asked for to this one.
    chain: Vec<(PathBuf, String)>,
    /// Files read so far; one that several extend is read, and counts, several times.
    read: usize,
    /// Everything read so far.
    sources: Vec<SourceFile>,
}

/// Reads `path` and its bases; `asked` is the path before links were followed. Returns the document and the beginning of the file.
fn read(
    path: &Path,
    asked: &Path,
    shown: &str,
    root: &Path,
    files: &mut Files,
) -> Result<(Document, Location), ExperimentError> {
    let source = Source::read(path, shown)?;
    files.sources.push(SourceFile::new(asked, Some(source.text().as_bytes())));
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    files.chain.push((real.clone(), shown.to_owned()));
    let mut tree = yaml::parse(&source)?;
    spelling::current(&mut tree)?;
    let mut merged = Document::default();
    for (relative, at) in Document::bases(&tree)? {
        let Base { path: base, asked, shown: base_shown } = resolve(&real, &relative, root, &at)?;
        let chain = &files.chain;
        files.read += 1;
        if files.read > MAX_FILES {
            return Err(at
                .error(
                    ErrorKind::Cycle,
                    format!("more than {MAX_FILES} files are extended, counted as often as they are"),
                )
                .help("extend every base once"));
        }
        if let Some(first) = chain.iter().position(|(other, _)| *other == base) {
            let mut circle: Vec<&str> = chain[first..].iter().map(|(_, shown)| shown.as_str()).collect();
            circle.push(&base_shown);
            return Err(at
                .error(ErrorKind::Cycle, format!("files extend each other in a circle: {}", circle.join(" -> ")))
                .label("closes the circle")
                .help("remove one of these `extends:`"));
        }
        if chain.len() == MAX_CHAIN {
            return Err(at
                .error(ErrorKind::Cycle, format!("more than {MAX_CHAIN} files extend each other"))
                .help("flatten the chain of bases"));
        }
        merged = merged.overlay(read(&base, &asked, &base_shown, root, files)?.0);
    }
    files.chain.pop();
    let own = Document::read(&tree, &merged.steps)?;
    Ok((merged.overlay(own), tree.at))
}

/// A file that another extends.
struct Base {
    /// Where it is.
    path: PathBuf,
    /// The same before links were followed.
    asked: PathBuf,
    /// How it is shown.
    shown: String,
}

/// The file that `extends: relative` means, seen from `from`.
fn resolve(from: &Path, relative: &str, root: &Path, at: &Location) -> Result<Base, ExperimentError> {
    let outside = || {
        at.error(ErrorKind::Outside, format!("`{relative}` leads out of the experiments folder"))
            .label("not allowed")
            .help(format!("bases must lie below `{}`", root.display()))
    };
    let real_root = std::fs::canonicalize(root).map_err(|error| {
        let message = format!("cannot find the experiments folder `{}`: {error}", root.display());
        ExperimentError::file(ErrorKind::Missing, message).help("run from the repository, or name the folder")
    })?;
    if let Some(part) = crate::path::unexpanded(relative) {
        return Err(at
            .error(ErrorKind::Missing, format!("`{part}` is not expanded in `extends`"))
            .label("would be taken literally")
            .help("write the path relative to this file, such as `../base/shapes-flant5.yaml`"));
    }
    if Path::new(relative).is_absolute() || relative.is_empty() {
        return Err(outside());
    }
    let mut target = from.parent().unwrap_or(Path::new("/")).to_owned();
    for part in Path::new(relative).components() {
        match part {
            Component::ParentDir => {
                target.pop();
            }
            Component::CurDir => {}
            other => target.push(other),
        }
    }
    if !target.starts_with(&real_root) {
        return Err(outside());
    }
    match std::fs::canonicalize(&target) {
        Ok(real) if real.starts_with(&real_root) => {
            let below = real.strip_prefix(&real_root).unwrap_or(&real);
            let shown = root.join(below).display().to_string();
            Ok(Base { path: real, asked: target, shown })
        }
        Ok(_) => Err(outside()),
        Err(_) => {
            let shown = root.join(target.strip_prefix(&real_root).unwrap_or(&target));
            let missing = Source::read(&target, &shown.display().to_string()).err();
            let advice = missing.as_ref().and_then(|error| error.advice()).map(str::to_owned);
            let advice = advice.map(|text| text.replace(&real_root.display().to_string(), &root.display().to_string()));
            Err(at
                .error(ErrorKind::Missing, format!("no file `{}`", shown.display()))
                .label("this base does not exist")
                .help_opt(advice))
        }
    }
}
