//! The embedded world's training side as files: a corpus of questions in the form of easy-VQA's package, for models whose training draws
//! from several corpora.

use std::{fs, path::Path};

use ::image::{ColorType, ImageFormat, save_buffer_with_format};
use ressa_experiment::{Task, config::Corpus, config::DataConfig};
use serde_json::{Value, json};

use super::{
    World, caption,
    draw::{Purpose, stream},
    world::LabelledImage,
};
use crate::{DataError, parallel, published::expected_of_corpus};

/// Questions of the kind of VQAv2 about each image.
const QUESTIONS: usize = 2;

/// Writes the first `images` training images under `root` as the corpus `shapes`, each with two questions and a caption, which is the answer to
/// the captioning instruction. The same files from the same seed; a list that is there already is replaced last.
///
/// # Errors
/// A configuration without an embedded world; a folder or file that cannot be written.
pub fn write_corpus(config: &DataConfig, root: &Path, images: usize, threads: usize) -> Result<(), DataError> {
    let world = World::new(config)?;
    let [list, folder] = expected_of_corpus(Corpus::Shapes).map(|expected| root.join(expected.path));
    let unwritten = |path: &Path| {
        let path = path.to_owned();
        move |source| DataError::Write { path, source }
    };
    fs::create_dir_all(&folder).map_err(unwritten(&folder))?;
    let rows: Vec<Vec<Value>> = parallel(images, threads, |index| {
        let labelled = world.training_image(index);
        let path = folder.join(format!("{index}.png"));
        let LabelledImage { scene, image } = &labelled;
        save_buffer_with_format(&path, &image.rgb(), image.width(), image.height(), ColorType::Rgb8, ImageFormat::Png)
            .map_err(|error| DataError::Png { reason: format!("`{}`: {error}", path.display()) })?;
        let mut rng = stream(world.seed(), Purpose::WrittenTexts, index);
        let asked = (0..QUESTIONS).filter_map(|_| world.question(Task::Vqav2, scene, &mut rng));
        let mut rows: Vec<Value> = asked.map(|question| json!([question.text, question.answer, index])).collect();
        rows.push(json!([caption::DESCRIBE, caption::draw(scene, &mut rng), index]));
        Ok::<_, DataError>(rows)
    })?;
    let partial = list.with_extension("json.partial");
    let text = serde_json::to_vec(&rows.concat()).unwrap_or_default();
    fs::write(&partial, text).map_err(unwritten(&partial))?;
    fs::rename(&partial, &list).map_err(unwritten(&list))
}
