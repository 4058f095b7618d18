//! Image files to the 8-bit levels that a model's processor makes of them, remembered where there is a cache.

use std::{os::unix::fs::MetadataExt, path::Path};

use ressa_store::{Cache, CacheKey};

use crate::{DataError, Image, Picture, Processor};

/// Raised when decoding or resizing gives other levels, so that no older entry is found.
const LEVELS_VERSION: u8 = 1;

/// Opens image files for one processor. Cheap to clone, and safe to use from several threads.
#[derive(Clone)]
pub struct ImageLoader {
    processor: Processor,
    cache: Option<(Cache, CacheKey)>,
}

impl ImageLoader {
    /// A loader for a processor, which looks into the cache first where there is one.
    pub fn new(processor: &Processor, cache: Option<&Cache>) -> Self {
        let key = || CacheKey::new("pixels").with([LEVELS_VERSION]).with(processor.images().identity());
        Self { processor: processor.clone(), cache: cache.map(|cache| (cache.clone(), key())) }
    }

    /// The processor.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// The levels `[3, height, width]` of a file's image at the size that the model reads.
    ///
    /// # Errors
    /// As [`Image::open`], and [`DataError::ImageSize`].
    pub fn levels(&self, path: &Path) -> Result<Vec<u8>, DataError> {
        self.changed(path, b"", |image| image)
    }

    /// The same of a benchmark's picture.
    ///
    /// # Errors
    /// As [`ImageLoader::levels`].
    pub fn levels_of(&self, picture: &Picture) -> Result<Vec<u8>, DataError> {
        self.kept(picture.identity(), b"", || picture.image().map(std::borrow::Cow::into_owned))
    }

    /// The same of an image that is changed between opening and resizing; `how` tells this change from others.
    ///
    /// # Errors
    /// As [`ImageLoader::levels`].
    pub fn changed(&self, path: &Path, how: &[u8], change: impl FnOnce(Image) -> Image) -> Result<Vec<u8>, DataError> {
        self.kept(file_identity(path), how, || Image::open(path).map(change))
    }

    /// The levels of an image with an identity, from the cache where they are in it.
    fn kept(
        &self,
        identity: Option<Vec<u8>>,
        how: &[u8],
        open: impl FnOnce() -> Result<Image, DataError>,
    ) -> Result<Vec<u8>, DataError> {
        let entry = self.cache.as_ref().and_then(|(cache, key)| Some((cache, key.with(identity?).with(how))));
        let images = self.processor.images();
        if let Some((cache, key)) = &entry
            && let Some(levels) = cache.get(key).filter(|levels| levels.len() == images.values())
        {
            return Ok(levels);
        }
        let levels = images.levels(&open()?)?;
        if let Some((cache, key)) = &entry {
            cache.put(key, &levels);
        }
        Ok(levels)
    }
}

/// What a file is known by without reading it: its absolute path, what the file system says it is, its size and when it was changed (an
/// edit that puts the time of modification back shows in the time of change). `None` where it is not there.
pub fn file_identity(path: &Path) -> Option<Vec<u8>> {
    let data = std::fs::metadata(path).ok()?;
    let mut identity = Vec::new();
    for part in
        [data.size() as i64, data.ino() as i64, data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()]
    {
        identity.extend(part.to_le_bytes());
    }
    identity.extend(std::path::absolute(path).ok()?.as_os_str().as_encoded_bytes());
    Some(identity)
}
