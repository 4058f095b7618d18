//! The same folder with other values, written tensor by tensor over several runs of the program: what was written stays when the process
//! dies, and the next one goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use ressa_experiment::{Pattern, job::Container};
use serde_json::Value;

use crate::{
    CARD, Checkpoint, CheckpointError, Entry, Exported, FolderCertificate, INDEX, carry::Carry, certificate::digest,
    draft::Draft, export::index_of, finish::Ending,
};

/// Bytes of an unchanged tensor that are copied at once.
const PART: usize = 16 << 20;

/// A folder in the making. Once it is begun, its files have the names, headers and sizes of the source's.
#[derive(Debug)]
pub struct Rewrite {
    source: Checkpoint,
    output: PathBuf,
    draft: Draft,
    files: Vec<fs::File>,
}

/// What a finished folder is claimed to be.
#[derive(Debug)]
pub struct Finished<'a> {
    /// Digests of the tensors that were put, by name. All others are taken from the source.
    pub changed: &'a BTreeMap<String, String>,
    /// Patterns that the changed tensors are claimed to follow, by tensor name.
    pub patterns: &'a BTreeMap<String, Pattern>,
    /// Program and version that write this, for the certificate.
    pub program: &'a str,
    /// How the weights were made, for the certificate.
    pub run: Option<Value>,
}

impl Rewrite {
    /// Starts `output`, which must be absent or empty, or goes on with what an earlier process left in `output` with the ending `.partial`.
    ///
    /// # Errors
    /// A source that cannot be opened, an output that is taken or cannot be written, another process at the same output.
    pub fn open(source: &Path, output: &Path) -> Result<Self, CheckpointError> {
        let source = Checkpoint::open(source)?;
        let draft = Draft::resume(output)?;
        Ok(Self { source, output: output.to_owned(), draft, files: Vec::new() })
    }

    /// Makes the files, or opens those of the earlier process. Before this, nothing of an unfinished folder is touched, so that its notes can
    /// be looked at first.
    pub fn begin(&mut self) -> Result<(), CheckpointError> {
        for file in self.source.files() {
            let path = self.draft.folder().join(file.path().file_name().unwrap_or_default());
            let unwritten = || CheckpointError::io("write", &path);
            let options = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let out = options.map_err(unwritten())?;
            // The rest is a hole until it is written.
            let (header, own) = (file.published_header(), file.header().len());
            out.set_len((file.map().len() - own + header.len()) as u64).map_err(unwritten())?;
            out.write_all_at(header, 0).map_err(unwritten())?;
            self.files.push(out);
        }
        Ok(())
    }

    /// The folder that everything but the changed values is taken from.
    pub fn source(&self) -> &Checkpoint {
        &self.source
    }

    /// Where notes about the unfinished run go; removed when it is finished.
    pub fn notes(&self) -> &Path {
        self.draft.home()
    }

    /// Writes the bytes of a tensor, in its type and shape. Answers with their digest.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<String, CheckpointError> {
        let (at, entry) = self.place(name)?;
        if bytes.len() != entry.bytes() {
            let reason = format!("tensor `{name}` was given {} bytes, it has {}", bytes.len(), entry.bytes());
            return Err(CheckpointError::file(self.source.files()[at].path(), reason));
        }
        self.write(at, bytes, entry.range.start)?;
        Ok(digest(bytes))
    }

    /// Makes what was put so far survive a loss of power.
    pub fn flush(&self) -> Result<(), CheckpointError> {
        let flush = |file: &fs::File| file.sync_data().map_err(CheckpointError::io("write", &self.output));
        self.files.iter().try_for_each(flush)
    }

    /// Copies what was not put, counts everything on what was written, and puts the folder in its place. `card` makes the model card from
    /// the certificate.
    ///
    /// # Errors
    /// When something cannot be written, does not read back as it was put, or does not follow its claimed pattern.
    pub fn finish(
        self,
        finished: &Finished<'_>,
        card: &dyn Fn(&FolderCertificate) -> String,
        progress: &mut dyn FnMut(f64, &str),
    ) -> Result<Exported, CheckpointError> {
        let Finished { changed, patterns, program, run } = finished;
        let total: usize = self.source.tensors().map(|(_, entry)| entry.bytes()).sum();
        let mut done = 0;
        for (at, file) in self.source.files().iter().enumerate() {
            for entry in file.entries() {
                if !changed.contains_key(&entry.name) {
                    for (part, bytes) in file.read(entry).chunks(PART).enumerate() {
                        self.write(at, bytes, entry.range.start + part * PART)?;
                    }
                    file.release(entry);
                }
                done += entry.bytes();
                progress(0.5 * done as f64 / total.max(1) as f64, "copying what stays");
            }
        }
        self.flush()?;
        let names = self.source.files().iter().filter_map(|file| file.path().file_name());
        let mut except: BTreeSet<PathBuf> = names.map(PathBuf::from).collect();
        if self.source.index().is_some() {
            self.draft.write(INDEX, &index_of(&self.source)?)?;
            except.insert(INDEX.into());
        }
        except.insert(CARD.into());
        let changes = !changed.is_empty() || self.source.container().is_some();
        let carried = Carry { except: &except, changed: changes }.carry(self.source.folder(), &self.draft)?;

        let ending = Ending {
            output: &self.output,
            digests: changed,
            patterns,
            program,
            run: run.as_ref(),
            container: Container::Dense,
            negative_zeros: 0,
            is_new_model: false,
        };
        let name = |file: &crate::File| self.output.join(file.path().file_name().unwrap_or_default());
        let weights = self.source.files().iter().map(name).collect();
        let certificate =
            ending.publish(self.draft, Some(card), &mut |share, message| progress(0.5 + 0.5 * share, message))?;
        Ok(Exported { weights, carried, certificate, changed: changed.len() as u64 })
    }

    /// The number of the file that holds a tensor, and the tensor.
    fn place(&self, name: &str) -> Result<(usize, &Entry), CheckpointError> {
        let absent = || CheckpointError::file(self.source.folder(), format!("there is no tensor `{name}`"));
        let (file, entry) = self.source.get(name).ok_or_else(absent)?;
        let at = self.source.files().iter().position(|other| other.path() == file.path()).ok_or_else(absent)?;
        Ok((at, entry))
    }

    fn write(&self, at: usize, bytes: &[u8], offset: usize) -> Result<(), CheckpointError> {
        let path = self.source.files()[at].path().file_name().unwrap_or_default();
        let unwritten = CheckpointError::io("write", self.draft.folder().join(path));
        let file = self.files.get(at).ok_or_else(|| CheckpointError::file(&self.output, "it is not begun"))?;
        // The copy's header may be longer or shorter than the source's.
        let source = &self.source.files()[at];
        let offset = offset - source.header().len() + source.published_header().len();
        file.write_all_at(bytes, offset as u64).map_err(unwritten)
    }
}
