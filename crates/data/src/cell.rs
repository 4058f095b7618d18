//! Images that stand in a table on disk, written in base64.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use csv::{ByteRecord, ReaderBuilder};

use crate::{DataError, Image};

/// Largest row that is read, in bytes: more than any image within the limits of an image file needs.
const ROW_LIMIT: u64 = 1 << 31;

/// A cell of a table with tabs between its columns, whose text is an image in base64. Read when it is needed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    path: Arc<PathBuf>,
    /// Where the row begins, in bytes.
    offset: u64,
    column: usize,
    /// The row as people count it, the head of the table not among them.
    row: usize,
}

impl Cell {
    pub(crate) fn new(path: &Arc<PathBuf>, offset: u64, column: usize, row: usize) -> Self {
        Self { path: Arc::clone(path), offset, column, row }
    }

    /// The table.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the row begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The name in messages.
    fn name(&self) -> PathBuf {
        PathBuf::from(format!("{}, entry {}", self.path.display(), self.row))
    }

    /// The image.
    ///
    /// # Errors
    /// [`DataError::Read`] for a table that cannot be read; [`DataError::Image`] for a cell that holds no image.
    pub fn image(&self) -> Result<Image, DataError> {
        let failed = |source| DataError::Read { path: self.path.to_path_buf(), source };
        let wrong = |reason: String| DataError::Image { path: self.name(), reason };
        let mut file = File::open(&*self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(self.offset)).map_err(failed)?;
        let mut record = ByteRecord::new();
        let found = rows().from_reader(file.take(ROW_LIMIT)).read_byte_record(&mut record);
        found.map_err(|error| wrong(error.to_string()))?;
        let text = record.get(self.column).ok_or_else(|| wrong("its cell is not there any more".to_owned()))?;
        let bytes = decoded(text).map_err(|reason| wrong(format!("it is not base64: {reason}")))?;
        Image::from_bytes(&bytes, &self.name())
    }
}

/// Reads rows as spreadsheet programs and pandas write them: tabs between cells, quotes around a cell with tabs or line breaks.
pub(crate) fn rows() -> ReaderBuilder {
    let mut reader = ReaderBuilder::new();
    reader.delimiter(b'\t').has_headers(false).flexible(true);
    reader
}

/// Bytes of a base64 text; blanks and line breaks do not count.
fn decoded(text: &[u8]) -> Result<Vec<u8>, base64::DecodeError> {
    let kept: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(kept)
}

/// Whether a text has the characters of base64 only.
pub(crate) fn is_base64(text: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || b"+/=".contains(byte);
    !text.is_empty() && text.iter().all(allowed)
}
