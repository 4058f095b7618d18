//! Captions to retrieve from: those of training images, never of what is evaluated.

use ressa_experiment::config::{CorporaConfig, DataConfig, DataSource, RetrievedConfig};

use crate::{Captions, DataError, Picture, World, stream::Purpose};

/// A caption of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolCaption {
    /// The caption.
    pub text: String,
    /// The name of its image ([`Picture::name`]); `None` in the embedded world, whose training images are no benchmark's.
    pub image: Option<String>,
}

/// The pool of an evaluation. In the embedded world, a caption of each of the first training images. Of corpora, a draw that is the same for every
/// run; fewer captions where the corpora have not so many.
///
/// An image is known by the name of its file: COCO's captions are those of images that VQAv2 asks about, too, and Visual Genome's of GQA's. An image of COCO
/// has the same number in all its years. Images that corpus and benchmark have under different names cannot be told: Visual Genome's that are COCO's,
/// and those that a benchmark has in a table (MMBench).
///
/// # Errors
/// What is missing under `data.root`, or the file, entry and field that is wrong.
pub fn pool(data: &DataConfig, config: &RetrievedConfig) -> Result<Vec<PoolCaption>, DataError> {
    let size = config.pool as usize;
    match data.source {
        DataSource::Shapes => {
            let world = World::new(data)?;
            Ok((0..size).map(|index| PoolCaption { text: world.training_caption(index), image: None }).collect())
        }
        DataSource::Folder => {
            let root = data.root.as_deref().ok_or(DataError::NoRoot)?;
            let drawn = Captions::without_images(&corpora(config), root, size, 0, Purpose::RetrievalPool)?;
            let caption = |entry: &crate::Captioned| PoolCaption {
                text: entry.caption.clone(),
                image: Picture::File(entry.image.clone()).name(),
            };
            Ok(drawn.entries().iter().map(caption).collect())
        }
    }
}

/// The corpora of a pool.
pub fn corpora(config: &RetrievedConfig) -> CorporaConfig {
    CorporaConfig { corpora: config.corpora.clone(), ..CorporaConfig::default() }
}
