//! `ressa gc --cache`: what stages keep for each other beside the store.

use std::path::Path;

use ressa_store::{Cache, CacheUsage};
use serde_json::json;

use crate::{
    arguments::{GcOptions, Global, loading::CACHE},
    exit::{Exit, Outcome},
    text::{count, say, say_json, size},
};

/// Lists, and with `--delete` clears. Sweeps that run meanwhile find the cache empty.
pub fn run(global: &Global, options: &GcOptions, results: &Path) -> Outcome {
    let cache = cache(results);
    let usage = cache.usage();
    if options.delete {
        cache.clear()?;
    }
    if global.json {
        say_json(&json!({ "deleted": options.delete, "bytes": bytes(usage.values()), "kinds": usage }));
        return Ok(Exit::Done);
    }
    for (kind, CacheUsage { entries, bytes }) in &usage {
        say(format_args!("{kind:<12}  {:>9}  {entries} files", size(*bytes)));
    }
    let total = size(bytes(usage.values()));
    match (usage.is_empty(), options.delete) {
        (true, _) => say("the cache is empty"),
        (false, true) => say(format_args!("the cache is cleared, {total} freed")),
        (false, false) => say(format_args!("the cache holds {total}; `ressa gc --cache --delete` clears it")),
    }
    Ok(Exit::Done)
}

/// A line about the cache for the list of what can be removed; nothing where it is empty.
pub fn mention(results: &Path) -> Option<String> {
    let usage = cache(results).usage();
    let entries: u64 = usage.values().map(|usage| usage.entries).sum();
    let entries = usize::try_from(entries).unwrap_or(usize::MAX);
    (entries > 0).then(|| {
        let (what, total) = (count(entries, "file"), size(bytes(usage.values())));
        format!("the cache holds {what}, {total}; `ressa gc --cache` shows it")
    })
}

fn cache(results: &Path) -> Cache {
    Cache::new(results.join(CACHE), u64::MAX)
}

fn bytes<'a>(usage: impl Iterator<Item = &'a CacheUsage>) -> u64 {
    usage.map(|usage| usage.bytes).sum()
}
