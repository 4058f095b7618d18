//! What is fetched, where it goes, and what is not fetched again.

use std::fs;

use ressa_hub::{Event, HubError, cached, fetch, wanted};

use crate::server::{Hub, REPO, checkpoint, commit, content, tag};

#[test]
fn a_checkpoint_is_laid_out_as_other_clients_lay_it_out() {
    let hub = Hub::serve(checkpoint());
    let settings = hub.settings();
    let mut events = Vec::new();
    let snapshot = fetch(REPO, None, &settings, &mut |event| events.push(event)).unwrap();

    let repository = settings.cache.join("models--some-lab--tiny-blip");
    assert_eq!(snapshot.folder, repository.join("snapshots").join(commit(1)));
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), commit(1));
    let references: Vec<_> = fs::read_dir(repository.join("refs")).unwrap().collect();
    assert_eq!(references.len(), 1, "{references:?}");
    let fetched: Vec<&str> = snapshot.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(
        fetched,
        [
            "model.safetensors.index.json",
            "config.json",
            "preprocessor_config.json",
            "qformer_tokenizer/tokenizer.json",
            "tokenizer.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ]
    );
    for name in fetched {
        let path = snapshot.folder.join(name);
        let content = &checkpoint()[name];
        assert_eq!(&fs::read(&path).unwrap(), content, "{name}");
        let link = fs::read_link(&path).unwrap();
        let up = "../".repeat(2 + name.matches('/').count());
        assert_eq!(link.to_str().unwrap(), format!("{up}blobs/{}", tag(content)), "{name}");
    }
    let pickled = snapshot.folder.join("pytorch_model.bin");
    assert!(!pickled.exists() && hub.asked().iter().all(|asked| !asked.path.contains(".bin")));
    let bytes: u64 = snapshot.files[1..].iter().map(|file| file.size).sum();
    assert!(events.contains(&Event::Listed { files: 7, bytes }));
    let last = "model-00002-of-00002.safetensors".to_owned();
    assert!(events.contains(&Event::Reached { name: last.clone(), at: 200_000, size: 200_000 }));
    assert_eq!(events.last(), Some(&Event::Finished { name: last, was_cached: false }));
}

#[test]
fn a_second_fetch_asks_for_the_commit_only_and_a_commit_for_nothing() {
    let hub = Hub::serve(checkpoint());
    let settings = hub.settings();
    let first = fetch(REPO, None, &settings, &mut |_| ()).unwrap();
    hub.asked();
    let second = fetch(REPO, None, &settings, &mut |_| ()).unwrap();
    assert_eq!(second.folder, first.folder);
    assert!(second.files.iter().all(|file| file.was_cached));
    let asked: Vec<String> = hub.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(asked, [format!("/api/models/{REPO}/revision/main?blobs=true")]);
    assert_eq!(fetch(REPO, Some(&commit(1)), &settings, &mut |_| ()).unwrap().folder, first.folder);
    assert!(hub.asked().is_empty());
}

#[test]
fn a_branch_that_moved_costs_what_has_changed() {
    let hub = Hub::serve(checkpoint());
    let settings = hub.settings();
    let first = fetch(REPO, None, &settings, &mut |_| ()).unwrap();
    let mut files = checkpoint();
    files.insert("tokenizer.json".to_owned(), content(6000, 7));
    hub.change(|hub| {
        hub.commits.insert(commit(2), files.clone());
        hub.revisions.insert("main".to_owned(), commit(2));
        hub.revisions.insert("refs/pr/3".to_owned(), commit(1));
    });
    let second = fetch(REPO, None, &settings, &mut |_| ()).unwrap();
    let changed: Vec<&str> =
        second.files.iter().filter(|file| !file.was_cached).map(|file| file.name.as_str()).collect();
    assert_eq!(changed, ["tokenizer.json"]);
    assert_eq!(fs::read(second.folder.join("tokenizer.json")).unwrap(), files["tokenizer.json"]);
    assert_eq!(cached(REPO, None, &settings), Some(second.folder));
    // The older commit is still there, under the name of another branch.
    assert_eq!(cached(REPO, Some("refs/pr/3"), &settings), None);
    assert_eq!(fetch(REPO, Some("refs/pr/3"), &settings, &mut |_| ()).unwrap().folder, first.folder);
    assert_eq!(cached(REPO, Some("refs/pr/3"), &settings), Some(first.folder));
}

#[test]
fn offline_the_cache_answers_or_nobody() {
    let hub = Hub::serve(checkpoint());
    let online = hub.settings();
    let mut offline = online.clone();
    offline.offline = true;
    let error = fetch(REPO, None, &offline, &mut |_| ()).unwrap_err();
    assert!(matches!(error, HubError::NotCached { .. }) && error.is_missing(), "{error}");
    let snapshot = fetch(REPO, None, &online, &mut |_| ()).unwrap();
    hub.asked();
    assert_eq!(fetch(REPO, None, &offline, &mut |_| ()).unwrap().folder, snapshot.folder);
    // A snapshot that lacks a piece of its weights is no checkpoint.
    fs::remove_file(snapshot.folder.join("model-00002-of-00002.safetensors")).unwrap();
    assert_eq!(cached(REPO, None, &offline), None);
    assert!(fetch(REPO, None, &offline, &mut |_| ()).is_err());
    assert!(hub.asked().is_empty());
}

#[test]
fn what_would_be_fetched_is_listed_with_its_sizes() {
    let mut files = checkpoint();
    files.retain(|name, _| !name.starts_with("model"));
    files.insert("model.safetensors".to_owned(), content(70_000, 8));
    let hub = Hub::serve(files);
    let settings = hub.settings();
    let list = wanted(REPO, None, &settings, &mut |_| ()).unwrap();
    let last = list.last().unwrap();
    assert_eq!((last.name.as_str(), last.size, last.is_cached), ("model.safetensors", Some(70_000), false));
    assert_eq!(hub.asked().len(), 1, "nothing is transferred for a list");
    fetch(REPO, None, &settings, &mut |_| ()).unwrap();
    assert!(wanted(REPO, None, &settings, &mut |_| ()).unwrap().iter().all(|file| file.is_cached));
}
