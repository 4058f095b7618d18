//! NoCaps and Flickr30k, in the form of the LAVIS distribution or as their authors publish them.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry as Slot},
    path::Path,
};

use ressa_experiment::Task;

use super::{
    FLICKR30K_CAPTIONS, FLICKR30K_IMAGES, Images, NOCAPS_IMAGES, NOCAPS_LIST, NOCAPS_REFERENCES, karpathy, not_empty,
};
use crate::{
    Benchmark, Content, DataError, Item,
    annotations::{Next, Place, each},
    json::Top,
    wording::blip_caption,
};

/// Images in one list, LAVIS' or the official one; references and domains in the official COCO-format file. The prompt is empty.
pub(super) fn nocaps(root: &Path, items: usize) -> Result<Benchmark, DataError> {
    let (list, references) = (root.join(NOCAPS_LIST), root.join(NOCAPS_REFERENCES));
    let (images, mut entries, mut known) = shown(&list, &root.join(NOCAPS_IMAGES), items)?;
    let places: HashMap<String, usize> = entries.iter().enumerate().map(|(at, item)| (item.id.clone(), at)).collect();
    let mut domains: HashMap<String, Option<String>> = HashMap::new();
    each(&references, Place::Under("images"), &|_| true, &mut |entry| {
        let id = entry.id("id")?;
        let domain = match entry.get("domain") {
            Some(_) => Some(entry.text("domain")?.to_owned()),
            None => None,
        };
        match domains.entry(id.clone()) {
            Slot::Occupied(_) => Err(entry.error(format!("image `{id}` was there before"))),
            Slot::Vacant(slot) => {
                slot.insert(domain);
                known.insert(id);
                Ok(Next::More)
            }
        }
    })?;
    each(&references, Place::Under("annotations"), &|_| true, &mut |entry| {
        let id = entry.id("image_id")?;
        let caption = entry.text("caption")?.to_owned();
        match places.get(&id) {
            Some(&at) => {
                if let Content::Caption { references, .. } = &mut entries[at].content {
                    references.push(caption);
                }
            }
            None if !known.contains(&id) => {
                return Err(
                    entry.error(format!("`image_id` is `{id}`, which neither `images` nor `{}` has", list.display()))
                );
            }
            None => {}
        }
        Ok(Next::More)
    })?;
    for item in &mut entries {
        if let Content::Caption { references: captions, set, .. } = &mut item.content {
            if captions.is_empty() {
                let reason = format!("it has no captions of image `{}` of `{}`", item.id, list.display());
                return Err(DataError::Unfit { path: references, reason });
            }
            *set = domains.remove(&item.id).flatten();
        }
    }
    Ok(Benchmark::on_disk(Task::Nocaps, images.paths, entries))
}

/// The first `items` images of NoCaps, still without references; and the ids of all.
fn shown(list: &Path, folder: &Path, items: usize) -> Result<(Images, Vec<Item>, HashSet<String>), DataError> {
    let top = Top::of(list)?;
    let official = top.has_list("images");
    let place = match (&top, official) {
        (Top::List, _) => Place::Whole,
        (_, true) => Place::Under("images"),
        _ => {
            let expected = "LAVIS' list of images (`image`, `img_id`), or the official object with a list `images`";
            return Err(DataError::Form { path: list.to_owned(), found: top.to_string(), expected });
        }
    };
    let mut images = Images::default();
    let mut entries: Vec<Item> = Vec::new();
    let mut known = HashSet::new();
    each(list, place, &|_| true, &mut |entry| {
        let id = entry.id(if official { "id" } else { "img_id" })?;
        if !known.insert(id.clone()) {
            return Err(entry.error(format!("image `{id}` was there before")));
        }
        if entries.len() >= items {
            return Ok(Next::More);
        }
        let image = if official {
            entry.file("file_name", folder, &format!("val/{}", entry.text("file_name")?))?
        } else {
            entry.image(folder)?
        };
        let before = images.paths.len();
        let image = images.index(image);
        if image < before {
            let field = if official { "file_name" } else { "image" };
            return Err(entry.error(format!("`{field}` is `{}`, which another image has", entry.text(field)?)));
        }
        entries.push(Item {
            id,
            image,
            content: Content::Caption { instruction: String::new(), references: Vec::new(), set: None },
        });
        Ok(Next::More)
    })?;
    not_empty(list, &entries)?;
    if official {
        images.expect_first(list, "`images` with `file_name`")?;
    }
    Ok((images, entries, known))
}

/// `items` images with their captions, processed as LAVIS' `blip_caption` does. Of Karpathy's file, the images of the split `test`.
pub(super) fn flickr30k(root: &Path, items: usize) -> Result<Benchmark, DataError> {
    let path = root.join(FLICKR30K_CAPTIONS);
    let folder = root.join(FLICKR30K_IMAGES);
    let top = Top::of(&path)?;
    let official = karpathy::is(&top);
    if top != Top::List && !official {
        let expected = "LAVIS' list of images (`image`, `caption`), or Karpathy's object with a list `images` (`filename`, `sentences`, `split`)";
        return Err(DataError::Form { path, found: top.to_string(), expected });
    }
    let mut images = Images::default();
    let mut entries: Vec<Item> = Vec::new();
    let mut add = |image: usize, captions: Vec<String>| {
        for (number, caption) in captions.into_iter().enumerate() {
            entries.push(Item {
                id: format!("{image:05}-{number}"),
                image,
                content: Content::Retrieval { caption: blip_caption(&caption) },
            });
        }
    };
    if official {
        // Karpathy's names have no folder; those of LAVIS begin with it.
        let folder = folder.join("flickr30k-images");
        karpathy::each_image(&path, &["test"], &folder, &mut |entry, file| {
            let before = images.paths.len();
            let image = images.index(file);
            if image < before {
                return Err(entry.error(format!("image `{}` was there before", entry.text("filename")?)));
            }
            add(image, entry.texts_within("sentences", "raw")?);
            Ok(if images.paths.len() < items { Next::More } else { Next::Enough })
        })?;
        images.expect_first(&path, "`filename`")?;
    } else {
        each(&path, Place::Whole, &|_| true, &mut |entry| {
            let before = images.paths.len();
            let image = images.index(entry.image(&folder)?);
            if image < before {
                return Err(entry.error(format!("image `{}` was there before", entry.text("image")?)));
            }
            add(image, entry.texts("caption")?);
            Ok(if images.paths.len() < items { Next::More } else { Next::Enough })
        })?;
    }
    not_empty(&path, &entries)?;
    Ok(Benchmark::on_disk(Task::Flickr30k, images.paths, entries))
}
