//! Transfers that break, and content that is not what it should be.

use std::{fs, path::Path};

use ressa_hub::{Event, HubError, Settings, fetch};

use crate::server::{Hub, REPO, checkpoint, commit, tag};

const SHARD: &str = "model-00001-of-00002.safetensors";

/// Where a file goes, and where its beginning waits.
fn places(settings: &Settings, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let blob = settings.cache.join("models--some-lab--tiny-blip/blobs").join(tag(&checkpoint()[name]));
    (blob.clone(), blob.with_extension("part"))
}

/// Ranges in which the body of a file was asked for, the first byte alone left out.
fn ranges(hub: &Hub, name: &str) -> Vec<String> {
    let bodies = hub.asked().into_iter().filter(|asked| asked.path.starts_with("/cdn/") && asked.path.ends_with(name));
    bodies.filter_map(|asked| asked.range).filter(|range| range != "bytes=0-0").collect()
}

fn holds(folder: &Path, name: &str) {
    assert!(fs::read(folder.join(name)).unwrap() == checkpoint()[name], "{name} is not what the hub has");
}

#[test]
fn a_broken_transfer_goes_on_where_it_was_within_a_call() {
    let hub = Hub::serve(checkpoint());
    hub.change(|hub| hub.breaks = [(SHARD.to_owned(), vec![100_000, 50_000, 0, 0])].into());
    let mut retries = 0;
    let count = |event: Event| retries += usize::from(matches!(event, Event::Retrying { .. }));
    let mut settings = hub.settings();
    settings.attempts = 4;
    let snapshot = fetch(REPO, None, &settings, &mut { count }).unwrap();
    assert_eq!(retries, 4);
    holds(&snapshot.folder, SHARD);
    assert_eq!(ranges(&hub, SHARD), ["bytes=0-", "bytes=100000-", "bytes=150000-", "bytes=150000-", "bytes=150000-"]);
}

#[test]
fn a_broken_transfer_goes_on_where_it_was_in_the_next_call() {
    let hub = Hub::serve(checkpoint());
    hub.change(|hub| hub.breaks = [(SHARD.to_owned(), vec![123_456])].into());
    let mut settings = hub.settings();
    settings.attempts = 1;
    let error = fetch(REPO, None, &settings, &mut |_| ()).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error}");
    assert!(error.to_string().contains(SHARD) && error.to_string().contains("fetch again to go on"), "{error}");
    let (blob, part) = places(&settings, SHARD);
    assert_eq!((blob.exists(), fs::metadata(part).unwrap().len()), (false, 123_456));
    hub.asked();
    let snapshot = fetch(REPO, None, &settings, &mut |_| ()).unwrap();
    assert_eq!(ranges(&hub, SHARD), ["bytes=123456-"]);
    holds(&snapshot.folder, SHARD);
    assert!(snapshot.files[0].was_cached, "what was complete is not transferred again");
}

#[test]
fn whatever_an_earlier_process_left_behind_ends_in_the_right_file() {
    let content = checkpoint().remove(SHARD).unwrap();
    let longer = [content.as_slice(), b"more"].concat();
    let mut wrong = content[..1000].to_vec();
    wrong[10] ^= 1;
    // All of it but not yet in its place; more than all; a beginning of something else; a broken transfer in the place of the file.
    for (in_part, left) in [(true, &content[..]), (true, &longer), (true, &wrong), (false, &content[..777])] {
        let hub = Hub::serve(checkpoint());
        let settings = hub.settings();
        let (blob, part) = places(&settings, SHARD);
        fs::create_dir_all(blob.parent().unwrap()).unwrap();
        fs::write(if in_part { part } else { blob }, left).unwrap();
        let snapshot = fetch(REPO, None, &settings, &mut |_| ()).unwrap();
        holds(&snapshot.folder, SHARD);
    }
    // A link to content that is gone.
    let hub = Hub::serve(checkpoint());
    let settings = hub.settings();
    let link = settings.cache.join("models--some-lab--tiny-blip/snapshots").join(commit(1)).join(SHARD);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("../../blobs/gone", &link).unwrap();
    holds(&fetch(REPO, None, &settings, &mut |_| ()).unwrap().folder, SHARD);
}

#[test]
fn content_that_is_not_what_the_hub_has_is_thrown_away() {
    let hub = Hub::serve(checkpoint());
    hub.change(|hub| hub.turns = [(SHARD.to_owned(), 1)].into());
    let mut reasons = Vec::new();
    let snapshot = fetch(REPO, None, &hub.settings(), &mut |event| {
        if let Event::Retrying { reason, .. } = event {
            reasons.push(reason);
        }
    })
    .unwrap();
    assert!(reasons.len() == 1 && reasons[0].contains("SHA-256"), "{reasons:?}");
    holds(&snapshot.folder, SHARD);

    let hub = Hub::serve(checkpoint());
    hub.change(|hub| hub.turns = [(SHARD.to_owned(), 99)].into());
    let settings = hub.settings();
    let error = fetch(REPO, None, &settings, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("SHA-256"), "{error}");
    let (blob, part) = places(&settings, SHARD);
    assert!(!blob.exists() && !part.exists());
}

#[test]
fn a_busy_hub_is_asked_again() {
    let hub = Hub::serve(checkpoint());
    hub.change(|hub| hub.statuses = vec![503, 429]);
    fetch(REPO, None, &hub.settings(), &mut |_| ()).unwrap();
}
