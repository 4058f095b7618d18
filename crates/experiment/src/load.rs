//! From a path to one merged document: reading, extending, staying inside the experiments folder.

use std::path::{Component, Path, PathBuf};

use crate::{
    document::Document,
    error::{ErrorKind, ExperimentError},
    source::{Location, Source},
    yaml,
};

/// Longest chain of files that extend each other.
const MAX_CHAIN: usize = 16;

/// Maximum number of extended files: bases of bases multiply.
const MAX_FILES: usize = 256;

/// A merged document with the beginning of its own file.
pub(crate) struct Loaded {
    pub document: Document,
    pub start: Location,
}

/// Reads `path` and everything it extends; bases must lie below `root`.
pub(crate) fn load(path: &Path, root: &Path) -> Result<Loaded, ExperimentError> {
    let mut files = Files::default();
    let loaded = read(path, &path.display().to_string(), root, &mut files)?;
    loaded.document.check_removals()?;
    Ok(loaded)
}

/// Files on the way to the one being read.
#[derive(Default)]
struct Files {
    /// Path and how it is shown, from the file that was asked for to this one.
    chain: Vec<(PathBuf, String)>,
    /// Files read so far; one that several extend is read, and counts, several times.
    read: usize,
}

fn read(path: &Path, shown: &str, root: &Path, files: &mut Files) -> Result<Loaded, ExperimentError> {
    let source = Source::read(path, shown)?;
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    files.chain.push((real.clone(), shown.to_owned()));
    let tree = yaml::parse(&source)?;
    let mut own = Document::read(&tree)?;
    let mut merged = Document::default();
    for (relative, at) in std::mem::take(&mut own.extends) {
        let (base, base_shown) = resolve(&real, &relative, root, &at)?;
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
        merged = merged.overlay(read(&base, &base_shown, root, files)?.document);
    }
    files.chain.pop();
    Ok(Loaded { document: merged.overlay(own), start: tree.at })
}

/// The file that `extends: relative` means, seen from `from`, and how to show it.
fn resolve(from: &Path, relative: &str, root: &Path, at: &Location) -> Result<(PathBuf, String), ExperimentError> {
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
            Ok((real, shown))
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
