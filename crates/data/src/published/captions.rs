//! NoCaps and Flickr30k.

use std::{collections::HashMap, path::Path};

use ressa_experiment::Task;

use super::{FLICKR30K_CAPTIONS, FLICKR30K_IMAGES, Images, NOCAPS_IMAGES, NOCAPS_LIST, NOCAPS_REFERENCES, not_empty};
use crate::{
    Benchmark, Content, DataError, Item,
    annotations::{Next, each},
    wording::blip_caption,
};

/// Images in LAVIS' list, references and domains in the official COCO-format file. The prompt is empty.
pub(super) fn nocaps(root: &Path, items: usize) -> Result<Benchmark, DataError> {
    let (list, references) = (root.join(NOCAPS_LIST), root.join(NOCAPS_REFERENCES));
    let folder = root.join(NOCAPS_IMAGES);
    let mut images = Images::default();
    let mut entries: Vec<Item> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    each(&list, None, &|_| true, &mut |entry| {
        let id = entry.id("img_id")?;
        if places.insert(id.clone(), entries.len()).is_some() {
            return Err(entry.error(format!("image `{id}` was there before")));
        }
        entries.push(Item {
            id,
            image: images.index(entry.image(&folder)?),
            content: Content::Caption { instruction: String::new(), references: Vec::new(), set: None },
        });
        Ok(if entries.len() < items { Next::More } else { Next::Enough })
    })?;
    not_empty(&list, &entries)?;
    each(&references, Some("images"), &|_| true, &mut |entry| {
        if let Some(&at) = places.get(&entry.id("id")?)
            && entry.get("domain").is_some()
            && let Content::Caption { set, .. } = &mut entries[at].content
        {
            *set = Some(entry.text("domain")?.to_owned());
        }
        Ok(Next::More)
    })?;
    each(&references, Some("annotations"), &|_| true, &mut |entry| {
        if let Some(&at) = places.get(&entry.id("image_id")?)
            && let Content::Caption { references, .. } = &mut entries[at].content
        {
            references.push(entry.text("caption")?.to_owned());
        }
        Ok(Next::More)
    })?;
    let bare = |item: &&Item| matches!(&item.content, Content::Caption { references, .. } if references.is_empty());
    if let Some(item) = entries.iter().find(bare) {
        let reason = format!("it has no captions of image `{}` of `{}`", item.id, list.display());
        return Err(DataError::Unfit { path: references, reason });
    }
    Ok(Benchmark::on_disk(Task::Nocaps, images.paths, entries))
}

/// `items` images with their captions, processed as LAVIS' `blip_caption` does.
pub(super) fn flickr30k(root: &Path, items: usize) -> Result<Benchmark, DataError> {
    let path = root.join(FLICKR30K_CAPTIONS);
    let folder = root.join(FLICKR30K_IMAGES);
    let mut images = Images::default();
    let mut entries: Vec<Item> = Vec::new();
    each(&path, None, &|_| true, &mut |entry| {
        let before = images.paths.len();
        let image = images.index(entry.image(&folder)?);
        if image < before {
            return Err(entry.error(format!("image `{}` was there before", entry.text("image")?)));
        }
        for (number, caption) in entry.texts("caption")?.into_iter().enumerate() {
            entries.push(Item {
                id: format!("{image:05}-{number}"),
                image,
                content: Content::Retrieval { caption: blip_caption(&caption) },
            });
        }
        Ok(if images.paths.len() < items { Next::More } else { Next::Enough })
    })?;
    not_empty(&path, &entries)?;
    Ok(Benchmark::on_disk(Task::Flickr30k, images.paths, entries))
}
