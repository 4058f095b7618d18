//! What cannot be had: names, tokens, repositories, forms of weights, networks, disks.

use std::{fs, net::TcpListener};

use ressa_hub::{HubError, Settings, cached, fetch, is_repository_name};

use crate::server::{Hub, REPO, checkpoint, content};

fn refusal(repo: &str, revision: Option<&str>, settings: &Settings) -> HubError {
    fetch(repo, revision, settings, &mut |_| ()).unwrap_err()
}

#[test]
fn a_gated_repository_wants_a_token_and_gets_it_from_the_settings() {
    let hub = Hub::serve(checkpoint());
    hub.change(|hub| hub.token = Some("hf_right".to_owned()));
    let mut settings = hub.settings();
    let error = refusal(REPO, None, &settings);
    assert!(error.to_string().contains("status 401") && error.to_string().contains("set HF_TOKEN"), "{error}");
    assert_eq!(hub.asked().len(), 1, "a refusal is not tried again");
    settings.token = Some("hf_wrong".to_owned());
    let error = refusal(REPO, None, &settings);
    assert!(error.to_string().contains("status 403") && error.to_string().contains("ask for access"), "{error}");
    settings.token = Some("hf_right".to_owned());
    fetch(REPO, None, &settings, &mut |_| ()).unwrap();
    let asked = hub.asked();
    assert!(asked.iter().filter(|asked| asked.path.contains("/resolve/")).all(|asked| asked.token.is_some()));
}

#[test]
fn what_is_not_there_is_named() {
    let hub = Hub::serve(checkpoint());
    let settings = hub.settings();
    let error = refusal("some-lab/other", None, &settings);
    assert!(matches!(error, HubError::NotFound { .. }) && error.to_string().contains("`some-lab/other`"), "{error}");
    let error = refusal(REPO, Some("v2"), &settings);
    assert!(error.to_string().contains("revision `v2` of `some-lab/tiny-blip`"), "{error}");

    let mut files = checkpoint();
    files.remove("model-00002-of-00002.safetensors");
    let error = refusal(REPO, None, &Hub::serve(files).settings());
    assert!(error.to_string().contains("`model-00002-of-00002.safetensors`, which"), "{error}");
    let mut files = checkpoint();
    files.remove("config.json");
    let error = refusal(REPO, None, &Hub::serve(files).settings());
    assert!(error.to_string().contains("has no `config.json`"), "{error}");
}

#[test]
fn pickled_weights_are_refused_before_anything_is_transferred() {
    let mut files = checkpoint();
    files.retain(|name, _| !name.ends_with(".safetensors") && !name.ends_with("index.json"));
    files.insert("pytorch_model-00002-of-00002.bin".to_owned(), content(10, 1));
    let hub = Hub::serve(files);
    let error = refusal(REPO, None, &hub.settings());
    let text = error.to_string();
    assert!(matches!(error, HubError::NoSafetensors { .. }) && error.is_missing());
    assert!(text.contains("`pytorch_model.bin`") && text.contains("pickled weights are refused"), "{text}");
    assert_eq!(hub.asked().len(), 1);
}

#[test]
fn no_name_leaves_the_cache() {
    let hub = Hub::serve(checkpoint());
    let settings = hub.settings();
    for repo in ["", "..", "a/b/c", "/etc", "a/..", "a b/c", "a--b/c", "a/.b", "models/x?y"] {
        assert!(!is_repository_name(repo), "{repo}");
        assert!(matches!(refusal(repo, None, &settings), HubError::Name { .. }), "{repo}");
        assert_eq!(cached(repo, None, &settings), None);
    }
    for revision in ["", "../../main", "a#b", "/main", "a//b"] {
        assert!(matches!(refusal(REPO, Some(revision), &settings), HubError::Name { .. }), "{revision}");
    }
    assert!(hub.asked().is_empty());
    let mut files = checkpoint();
    let index = serde_json::json!({ "weight_map": { "a": "../../../../escape.safetensors" } });
    files.insert("model.safetensors.index.json".to_owned(), index.to_string().into_bytes());
    let error = refusal(REPO, None, &Hub::serve(files).settings());
    assert!(error.to_string().contains("escape.safetensors"), "{error}");
}

#[test]
fn without_a_network_the_advice_depends_on_the_cache() {
    let hub = Hub::serve(checkpoint());
    let mut settings = hub.settings();
    fetch(REPO, None, &settings, &mut |_| ()).unwrap();
    // A port that nobody listens to any more.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    settings.endpoint = format!("http://{free}");
    let error = refusal(REPO, None, &settings);
    assert!(matches!(error, HubError::Network { .. }) && error.to_string().contains("HF_HUB_OFFLINE=1"), "{error}");
    settings.cache = hub.folder.path().join("empty");
    assert!(refusal(REPO, None, &settings).to_string().contains("is there a network"));
}

#[test]
fn a_cache_that_cannot_be_written_is_said_to_be_so() {
    let hub = Hub::serve(checkpoint());
    let mut settings = hub.settings();
    fs::write(hub.folder.path().join("file"), "").unwrap();
    settings.cache = hub.folder.path().join("file/hub");
    let error = refusal(REPO, None, &settings);
    assert!(error.is_storage(), "{error}");
}
