//! Image features kept between evaluations: those of one image encoder on one kind of device, to the bit as they were computed.

use ressa_data::{ImageProcessor, Picture};
use ressa_store::{Cache, CacheKey};
use tch::{Kind, Tensor};

/// Raised when the layout of an entry changes.
const VERSION: u8 = 2;
/// Kinds that features may have, by their number in an entry.
const KINDS: [Kind; 4] = [Kind::Float, Kind::BFloat16, Kind::Half, Kind::Double];

/// A cache of the features that one image encoder makes.
#[derive(Clone, Debug)]
pub struct FeatureCache {
    cache: Cache,
    key: CacheKey,
}

impl FeatureCache {
    /// The features of the image encoder that `encoder` identifies: its weights, masks, type of computation and device.
    pub fn new(cache: &Cache, encoder: impl AsRef<[u8]>) -> Self {
        Self { cache: cache.clone(), key: CacheKey::new("features").with([VERSION]).with(encoder) }
    }

    /// The same for images as a processor makes them model-ready.
    pub fn after(&self, processor: &ImageProcessor) -> Self {
        let table: Vec<u8> = processor.table().as_flattened().iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { cache: self.cache.clone(), key: self.key.with(processor.identity()).with(table) }
    }

    /// The key of an image file; `None` where it is not there.
    pub fn key(&self, image: &Picture) -> Option<CacheKey> {
        Some(self.key.with(image.identity()?))
    }

    /// Features `[tokens, width]` on the host.
    pub fn get(&self, key: &CacheKey) -> Option<Tensor> {
        read(&self.cache.get(key)?)
    }

    /// Whether the features of so many images, of so many bytes each, would leave half of the cache to others. A benchmark that does
    /// not fit would push out its own first images before it is asked for again.
    pub fn has_room(&self, images: usize, bytes: usize) -> bool {
        (images as u64).saturating_mul(bytes as u64) <= self.cache.limit() / 2
    }

    /// Keeps features `[tokens, width]` of the host.
    pub fn put(&self, key: &CacheKey, features: &Tensor) {
        if let Some(entry) = written(features) {
            self.cache.put(key, &entry);
        }
    }
}

/// Kind and shape, then the elements.
fn written(features: &Tensor) -> Option<Vec<u8>> {
    let kind = KINDS.iter().position(|kind| *kind == features.kind())?;
    let [tokens, width]: [i64; 2] = features.size().try_into().ok()?;
    let mut entry = vec![kind as u8];
    entry.extend(tokens.to_le_bytes());
    entry.extend(width.to_le_bytes());
    let start = entry.len();
    entry.resize(start + features.numel() * features.kind().elt_size_in_bytes(), 0);
    features.contiguous().f_copy_data_u8(&mut entry[start..], features.numel()).ok()?;
    Some(entry)
}

fn read(entry: &[u8]) -> Option<Tensor> {
    let (kind, rest) = entry.split_first()?;
    let (tokens, rest) = rest.split_first_chunk::<8>()?;
    let (width, elements) = rest.split_first_chunk::<8>()?;
    let kind = *KINDS.get(usize::from(*kind))?;
    let shape = [i64::from_le_bytes(*tokens), i64::from_le_bytes(*width)];
    let count = shape[0].checked_mul(shape[1]).and_then(|count| usize::try_from(count).ok())?;
    if count.checked_mul(kind.elt_size_in_bytes())? != elements.len() {
        return None;
    }
    Tensor::f_from_data_size(elements, &shape, kind).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_come_back_to_the_bit_in_their_type() {
        let features = Tensor::arange(12, (Kind::Float, tch::Device::Cpu)).view([3, 4]) / 7.0;
        for kind in KINDS {
            let features = features.to_kind(kind);
            let read = read(&written(&features).unwrap()).unwrap();
            assert!(read.kind() == kind && read.equal(&features), "{kind:?}");
        }
        assert!(written(&features.to_kind(Kind::Int64)).is_none());
        let entry = written(&features).unwrap();
        assert!(read(&entry[..entry.len() - 1]).is_none() && read(&[]).is_none() && read(&[9; 30]).is_none());
    }
}
