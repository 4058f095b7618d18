//! Image files to the 8-bit levels that a model's processor makes of them, remembered where there is a cache.

use std::{os::unix::fs::MetadataExt, path::Path};

use ressa_store::{Cache, CacheKey};

use crate::{DataError, Image, Picture, Processor};

/// Raised when decoding or resizing gives other levels, so that no older entry is found.
const LEVELS_VERSION: u8 = 1;

/// An image at the size that the model reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sized {
    /// `[3, height, width]`.
    pub levels: Vec<u8>,
    /// Height and width.
    pub size: (u32, u32),
}

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

    /// The levels of a file's image at the size that the model reads.
    ///
    /// # Errors
    /// As [`Image::open`], and [`DataError::ImageSize`].
    pub fn levels(&self, path: &Path) -> Result<Sized, DataError> {
        self.changed(path, b"", |image| image)
    }

    /// The same of a benchmark's picture.
    ///
    /// # Errors
    /// As [`ImageLoader::levels`].
    pub fn levels_of(&self, picture: &Picture) -> Result<Sized, DataError> {
        self.kept(picture.identity(), b"", || picture.image().map(std::borrow::Cow::into_owned))
    }

    /// The same of an image that is changed between opening and resizing; `how` tells this change from others.
    ///
    /// # Errors
    /// As [`ImageLoader::levels`].
    pub fn changed(&self, path: &Path, how: &[u8], change: impl FnOnce(Image) -> Image) -> Result<Sized, DataError> {
        self.kept(file_identity(path), how, || Image::open(path).map(change)).map_err(|error| error.of_image(path))
    }

    /// The levels of an image with an identity, from the cache where they are in it.
    fn kept(
        &self,
        identity: Option<Vec<u8>>,
        how: &[u8],
        open: impl FnOnce() -> Result<Image, DataError>,
    ) -> Result<Sized, DataError> {
        let entry = self.cache.as_ref().and_then(|(cache, key)| Some((cache, key.with(identity?).with(how))));
        let images = self.processor.images();
        let own = !images.has_one_size();
        if let Some((cache, key)) = &entry
            && let Some(known) = cache.get(key)
        {
            if own {
                if let Some(sized) = unmarked(known) {
                    return Ok(sized);
                }
            } else if known.len() == images.values() {
                return Ok(Sized { levels: known, size: images.image_size() });
            }
        }
        let image = open()?;
        let size = images.size_of(image.width(), image.height())?;
        let sized = Sized { levels: images.levels(&image)?, size };
        if let Some((cache, key)) = &entry {
            if own {
                cache.put(key, &marked(&sized))
            } else {
                cache.put(key, &sized.levels)
            };
        }
        Ok(sized)
    }
}

/// Levels with their size behind them, where that is not the same for all images.
fn marked(Sized { levels, size }: &Sized) -> Vec<u8> {
    [levels.as_slice(), &size.0.to_le_bytes(), &size.1.to_le_bytes()].concat()
}

/// What [`marked`] has written; `None` of anything else.
fn unmarked(mut entry: Vec<u8>) -> Option<Sized> {
    let (rest, width) = entry.split_last_chunk::<4>()?;
    let (levels, height) = rest.split_last_chunk::<4>()?;
    let size = (u32::from_le_bytes(*height), u32::from_le_bytes(*width));
    let count = 3u64.checked_mul(size.0.into())?.checked_mul(size.1.into())?;
    if levels.len() as u64 != count {
        return None;
    }
    entry.truncate(count as usize);
    Some(Sized { levels: entry, size })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_any_size_come_back_with_it() {
        let sized = Sized { levels: (0..36).collect(), size: (3, 4) };
        assert_eq!(unmarked(marked(&sized)), Some(sized.clone()));
        let cut = marked(&sized)[1..].to_vec();
        assert_eq!((unmarked(cut), unmarked(Vec::new())), (None, None));
    }
}
