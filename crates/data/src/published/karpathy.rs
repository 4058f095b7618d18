//! Karpathy's files of captions: an object with a list `images`, each with its sentences and the split that it belongs to.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    DataError,
    annotations::{Entry, Next, Place, each},
    json::Top,
};

/// Whether a file may be one of Karpathy's: it has `images`, and no list of annotations beside them as COCO's own files have.
pub(crate) fn is(top: &Top) -> bool {
    top.has_list("images") && !top.has_list("annotations")
}

/// Hands on the images of some splits with their files below `folder`.
///
/// # Errors
/// Entries without the fields of the form; a file without an image of these splits.
pub(crate) fn each_image(
    path: &Path,
    splits: &[&str],
    folder: &Path,
    take: &mut dyn FnMut(&Entry<'_>, PathBuf) -> Result<Next, DataError>,
) -> Result<(), DataError> {
    let mut others = BTreeSet::new();
    let mut found = false;
    let images = each(path, Place::Under("images"), &|_| true, &mut |entry| {
        let split = entry.text("split")?;
        if !splits.contains(&split) {
            others.insert(split.to_owned());
            return Ok(Next::More);
        }
        found = true;
        let file = entry.file("filename", folder, entry.text("filename")?)?;
        // COCO's images have a folder of their own; Flickr30k's have none.
        let file = match (entry.get("filepath"), file.file_name()) {
            (Some(_), Some(name)) => entry.file("filepath", folder, entry.text("filepath")?)?.join(name),
            _ => file,
        };
        take(&entry, file)
    })?;
    if found {
        return Ok(());
    }
    let reason = format!(
        "Karpathy's form, with {images} `images`, none of which is of split `{}` (splits found: {})",
        splits.join("` or `"),
        if others.is_empty() { "none".to_owned() } else { others.into_iter().collect::<Vec<_>>().join(", ") }
    );
    Err(DataError::Unfit { path: path.to_owned(), reason })
}
