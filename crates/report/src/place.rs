//! Which folder a report is written to. A folder belongs to the file, overrides and selection that its `report.json` names, and nothing else is
//! written there.

use std::{fs, path::Path};

use ressa_experiment::Origin;

use serde_json::Value;

use crate::{
    ReportError,
    saved::{self, Saved},
};

/// A folder of the results, and what a reader must be told about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Name of the folder.
    pub folder: String,
    /// A sentence where it is not simply the experiment's own.
    pub note: Option<String>,
}

/// The folder of an origin's report: the experiment's name, or, where that is another's, the name with what tells origins apart. An experiment
/// as its file says it has the first claim to its name: the report of a selection that stands there is moved, not overwritten.
///
/// # Errors
/// A folder that cannot be moved.
pub(crate) fn of(results: &Path, name: &str, origin: &Origin) -> Result<Place, ReportError> {
    let beside = |origin: &Origin| format!("{name}@{}", origin.digest());
    let own = beside(origin);
    let plain = |note| Place { folder: name.to_owned(), note };
    if !origin.is_whole() && Saved::read(&results.join(&own)).is_some_and(|saved| saved.origin == *origin) {
        return Ok(Place { folder: own, note: None });
    }
    let there = results.join(name);
    let Some(holder) = Saved::read(&there) else {
        if is_strange(&there) {
            let note = format!(
                "`{name}/` has files that are no report of ressa; this one, of `{origin}`, is written to `{own}/`"
            );
            return Ok(Place { folder: own, note: Some(note) });
        }
        let is_older = there.join("report.html").is_file();
        return Ok(plain(is_older.then(|| {
            format!("`{name}/` has a report of a version that did not record its file; it is replaced by this one, of `{origin}`")
        })));
    };
    if holder.origin == *origin {
        return Ok(plain(None));
    }
    let moved = beside(&holder.origin);
    let is_selection = holder.origin.file == origin.file && origin.is_whole();
    if is_selection && !results.join(&moved).exists() {
        fs::rename(&there, results.join(&moved)).map_err(|source| ReportError::Write { path: there, source })?;
        let note = format!("`{name}/` had the report of `{}`, which is now in `{moved}/`", holder.origin);
        return Ok(plain(Some(note)));
    }
    let note =
        format!("`{name}/` is the report of `{}`; this one, of `{origin}`, is written to `{own}/`", holder.origin);
    Ok(Place { folder: own, note: Some(note) })
}

/// Whether a folder without a report that can be read holds something that the program did not put there: files, but neither a report's page
/// nor what says whose it is.
fn is_strange(folder: &Path) -> bool {
    let is_empty = fs::read_dir(folder).map_or(true, |mut items| items.next().is_none());
    let says = fs::read(folder.join(saved::FILE)).ok().map(|text| serde_json::from_slice::<Value>(&text).ok());
    match says {
        // Of another version of the format, perhaps.
        Some(saved) => !saved.is_some_and(|saved| saved.get("format").is_some() && saved.get("origin").is_some()),
        None => !is_empty && !folder.join("report.html").is_file(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(file: &str, overrides: &[&str]) -> Origin {
        let overrides = overrides.iter().map(|text| (*text).to_owned()).collect();
        Origin { file: file.to_owned(), overrides, selection: Vec::new() }
    }

    #[test]
    fn what_somebody_else_put_there_is_not_written_over() {
        let results = tempfile::tempdir().unwrap();
        let folder = results.path().join("smoke");
        fs::create_dir(&folder).unwrap();
        let own = origin("a.yaml", &[]);
        let of = || of(results.path(), "smoke", &own).unwrap();
        assert_eq!(of(), Place { folder: "smoke".to_owned(), note: None }, "an empty folder is nobody's");
        fs::write(folder.join("summary.csv"), "mine").unwrap();
        assert_ne!(of().folder, "smoke");
        fs::write(folder.join("report.json"), "{}").unwrap();
        assert!(of().note.unwrap().contains("no report of ressa"));
        // An older report, of a version that wrote no `report.json`.
        fs::remove_file(folder.join("report.json")).unwrap();
        fs::write(folder.join("report.html"), "").unwrap();
        assert_eq!(of().folder, "smoke");
    }

    #[test]
    fn a_folder_belongs_to_one_origin() {
        let results = tempfile::tempdir().unwrap();
        let results = results.path();
        let render = |origin: &Origin| {
            let place = of(results, "smoke", origin).unwrap();
            let folder = results.join(&place.folder);
            fs::create_dir_all(&folder).unwrap();
            let saved = Saved { origin: origin.clone(), name: place.folder.clone(), ..Saved::default() };
            fs::write(folder.join("report.json"), saved.text()).unwrap();
            place
        };
        let whole = origin("shapes/smoke.yaml", &[]);
        let part = origin("shapes/smoke.yaml", &["restore.method=none"]);
        let other = origin("mine/smoke.yaml", &[]);
        let runs = Origin { selection: vec!["-E 'seed = 0'".to_owned()], ..whole.clone() };

        assert_eq!(render(&part), Place { folder: "smoke".to_owned(), note: None }, "a free name is anybody's");
        let place = render(&whole);
        assert_eq!(place.folder, "smoke", "the experiment itself comes before its selections");
        assert!(place.note.unwrap().contains(&part.digest()));
        assert_eq!(render(&whole).note, None);

        let aside = format!("smoke@{}", part.digest());
        assert_eq!(render(&part), Place { folder: aside.clone(), note: None }, "its earlier folder");
        let place = render(&other);
        assert_eq!(place.folder, format!("smoke@{}", other.digest()));
        assert!(place.note.unwrap().contains("`smoke/` is the report of `shapes/smoke.yaml`"));
        let chosen = render(&runs);
        assert!(chosen.note.unwrap().contains("this one, of `shapes/smoke.yaml -E 'seed = 0'`"));
        for (folder, owner) in [("smoke", &whole), (&aside, &part), (&place.folder, &other), (&chosen.folder, &runs)] {
            assert_eq!(Saved::read(&results.join(folder)).unwrap().origin, *owner);
        }
    }

    #[test]
    fn a_folder_without_a_marker_is_taken_over_with_a_word() {
        let results = tempfile::tempdir().unwrap();
        fs::create_dir(results.path().join("smoke")).unwrap();
        let whole = origin("shapes/smoke.yaml", &[]);
        assert_eq!(of(results.path(), "smoke", &whole).unwrap().note, None, "nobody's report is there");
        fs::write(results.path().join("smoke/report.html"), "old").unwrap();
        assert!(of(results.path(), "smoke", &whole).unwrap().note.unwrap().contains("replaced"));
    }
}
