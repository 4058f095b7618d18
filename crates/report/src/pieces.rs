//! Files that are written piece by piece: large ones are never held whole.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
};

use polars::prelude::{PolarsError, PolarsResult};

use crate::ReportError;

/// Replaces a file whole by what `fill` writes, unless it has this content already.
pub(crate) fn write(path: &Path, fill: impl Fn(&mut dyn Write) -> PolarsResult<()>) -> Result<(), ReportError> {
    if is_same(path, &fill) {
        return Ok(());
    }
    let failed = |source| ReportError::Write { path: path.to_owned(), source };
    replace(path, failed, |file| {
        let mut out = BufWriter::new(file);
        fill(&mut out).map_err(|error| match error {
            PolarsError::IO { error, .. } => failed(io::Error::new(error.kind(), error)),
            other => ReportError::Frame(other),
        })?;
        out.flush().map_err(failed)
    })
}

/// Puts a file in the place of another, or where there is none.
pub(crate) fn replace(
    path: &Path,
    failed: impl Fn(io::Error) -> ReportError,
    fill: impl FnOnce(&mut File) -> Result<(), ReportError>,
) -> Result<(), ReportError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = File::create(&part)
        .map_err(&failed)
        .and_then(|mut file| fill(&mut file))
        .and_then(|()| fs::rename(&part, path).map_err(&failed));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

/// Whether a file is what `fill` writes.
fn is_same(path: &Path, fill: impl Fn(&mut dyn Write) -> PolarsResult<()>) -> bool {
    let Ok(there) = File::open(path) else { return false };
    let mut there = Expected(BufReader::new(there));
    fill(&mut there).is_ok() && there.0.read(&mut [0]).is_ok_and(|more| more == 0)
}

/// Takes what a file has, and nothing else.
struct Expected(BufReader<File>);

impl Write for Expected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut there = vec![0; bytes.len()];
        self.0.read_exact(&mut there)?;
        if there == bytes { Ok(bytes.len()) } else { Err(io::Error::other("the file differs")) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_only_by_another_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let put = |text: &'static str| write(&path, |out| out.write_all(text.as_bytes()).map_err(Into::into));
        put("one\ntwo\n").unwrap();
        let first = fs::metadata(&path).unwrap().modified().unwrap();
        put("one\ntwo\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), first);
        for text in ["one\n", "one\ntwo\nthree\n", ""] {
            put(text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let refused = write(&path, |_| Err(io::Error::other("the disk is full").into())).unwrap_err().to_string();
        assert!(refused.contains("a.csv"), "{refused}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }
}
