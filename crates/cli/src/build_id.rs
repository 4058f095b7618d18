//! Which build of this program runs.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
};

/// The running program, even after its file was replaced.
const RUNNING: &str = "/proc/self/exe";
/// Segments of notes, and the note that names a build.
const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
/// Maximum size of program headers and notes that are read; real ones have a few hundred bytes.
const MAX_TABLE: u64 = 1 << 16;
/// Digits that are shown.
const DIGITS: usize = 12;

/// A name that two programs share only if they are the same build: the linker's digest of the program, a note of a few bytes, or where the
/// linker wrote none a digest of the whole file, which takes as long as reading it.
pub fn build() -> Option<String> {
    let program = File::open(RUNNING).or_else(|_| File::open(std::env::current_exe()?)).ok()?;
    let noted = build_id(program).ok().flatten();
    noted.or_else(|| Some(blake3::hash(&fs::read(std::env::current_exe().ok()?).ok()?).to_hex()[..DIGITS].to_owned()))
}

/// The build id of an ELF file of 64 bits and little endian; `None` where it has none, or is another kind of file.
fn build_id(mut file: impl Read + Seek) -> io::Result<Option<String>> {
    let mut header = [0; 64];
    file.read_exact(&mut header)?;
    if header[..6] != *b"\x7fELF\x02\x01" {
        return Ok(None);
    }
    let (start, size, count) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    let Some(table) = part(&mut file, start, u64::from(size) * u64::from(count))? else { return Ok(None) };
    for segment in table.chunks_exact(usize::from(size).max(1)).filter(|segment| segment.len() >= 56) {
        if u32_at(segment, 0) == PT_NOTE
            && let Some(notes) = part(&mut file, u64_at(segment, 8), u64_at(segment, 32))?
            && let Some(id) = of_notes(&notes)
        {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// The build id among notes: lengths of name and content, a kind, then both, padded to four bytes.
fn of_notes(mut notes: &[u8]) -> Option<String> {
    loop {
        let (head, rest) = notes.split_at_checked(12)?;
        let (name, content) = (u32_at(head, 0) as usize, u32_at(head, 4) as usize);
        let (name, rest) = rest.split_at_checked(name.checked_next_multiple_of(4)?)?;
        let id = rest.get(..content)?;
        if u32_at(head, 8) == NT_GNU_BUILD_ID && name == b"GNU\0" {
            let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
            return id.get(..DIGITS).map(str::to_owned);
        }
        notes = rest.get(content.checked_next_multiple_of(4)?..)?;
    }
}

/// Bytes of a file; `None` for more than a table has.
fn part(file: &mut (impl Read + Seek), start: u64, length: u64) -> io::Result<Option<Vec<u8>>> {
    if length > MAX_TABLE {
        return Ok(None);
    }
    let mut bytes = vec![0; length as usize];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn note(kind: u32, name: &[u8], content: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [name.len() as u32, content.len() as u32, kind] {
            note.extend(number.to_le_bytes());
        }
        for part in [name, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    /// A program with one segment of notes.
    fn elf(notes: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64;
        (file[54], file[56]) = (56, 1);
        file[64] = PT_NOTE as u8;
        file[64 + 8] = 120;
        file[64 + 32..64 + 34].copy_from_slice(&(notes.len() as u16).to_le_bytes());
        file.extend(notes);
        file
    }

    #[test]
    fn the_note_is_found_among_others() {
        let notes = [note(1, b"Linux\0", b"12345"), note(3, b"GNU\0", &[0xab; 20])].concat();
        assert_eq!(build_id(Cursor::new(elf(&notes))).unwrap().unwrap(), "abababababab");
    }

    #[test]
    fn a_program_without_one_has_none() {
        assert_eq!(build_id(Cursor::new(elf(&note(3, b"Go\0\0", &[1; 20])))).unwrap(), None);
        assert_eq!(build_id(Cursor::new(elf(&[255; 40]))).unwrap(), None);
        assert_eq!(build_id(Cursor::new(vec![b'#'; 200])).unwrap(), None);
        assert!(build_id(Cursor::new(elf(&[])[..100].to_vec())).is_err());
    }

    #[test]
    fn this_program_has_a_name_that_stays() {
        let name = build().unwrap();
        assert_eq!(name.len(), DIGITS);
        assert_eq!(Some(name), build());
    }
}
