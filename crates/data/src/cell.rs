//! Images that stand in a table on disk, written in base64.

use std::{
    cell,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use csv::{ByteRecord, Reader, ReaderBuilder};

use crate::{DataError, Image};

/// Largest row that is read, in bytes: more than any image within the limits of an image file needs.
const ROW_LIMIT: u64 = 1 << 31;
/// A row put behind the last one: where a quotation mark is still open there, it is no row of its own.
const END: &[u8] = b"\n\0end\n";

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

/// All rows of a table, one at a time.
pub(crate) struct Rows {
    reader: Reader<Box<dyn Read>>,
    /// Bytes that the row that is being read may still have.
    left: Rc<cell::Cell<u64>>,
    record: ByteRecord,
    /// Cells of the first row.
    columns: usize,
}

impl Rows {
    pub fn new(table: File) -> Self {
        let left = Rc::new(cell::Cell::new(0));
        let limited: Box<dyn Read> = Box::new(Limited { table: table.chain(END), left: Rc::clone(&left) });
        Self { reader: rows().from_reader(limited), left, record: ByteRecord::new(), columns: 0 }
    }

    /// The next row with the place where it begins, in bytes from the beginning of the file; `None` behind the last one.
    ///
    /// # Errors
    /// A row that is too long, or a cell with a quotation mark that swallows the rows behind it.
    pub fn next(&mut self) -> Result<Option<(u64, &ByteRecord)>, String> {
        self.left.set(ROW_LIMIT);
        let offset = self.reader.position().byte();
        if !self.reader.read_byte_record(&mut self.record).map_err(|error| error.to_string())? {
            return Ok(None);
        }
        let end = END.trim_ascii();
        let last = self.record.iter().next_back().unwrap_or_default();
        if self.record.len() == 1 && last == end {
            return Ok(None);
        }
        if last.ends_with(&END[1..]) {
            return Err(
                "a cell begins with a quotation mark that nothing closes; write it twice, within quotation marks"
                    .to_owned(),
            );
        }
        if self.columns == 0 {
            self.columns = self.record.len();
        }
        let holds_rows = |cell: &[u8]| {
            let tabs = cell.iter().filter(|byte| **byte == b'\t').count();
            tabs + 1 >= self.columns.max(2) && cell.contains(&b'\n')
        };
        if self.record.iter().any(holds_rows) {
            return Err(
                "a cell holds whole rows: it begins with a quotation mark that is closed in another one".to_owned()
            );
        }
        Ok(Some((offset, &self.record)))
    }
}

/// A table that is read until a row is too long.
struct Limited<R> {
    table: R,
    left: Rc<cell::Cell<u64>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.table.read(buffer)?;
        let left = self.left.get().checked_sub(count as u64);
        self.left.set(left.ok_or_else(|| io::Error::other(format!("it has more than {ROW_LIMIT} bytes")))?);
        Ok(count)
    }
}

/// Reads rows as spreadsheet programs and pandas write them: tabs between cells, quotes around a cell with tabs or line breaks.
fn rows() -> ReaderBuilder {
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
