//! The cache gives back what was put, forgets what is damaged or old, and stands several writers.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, SystemTime},
};

use ressa_store::{Cache, CacheKey};

fn key(number: u64) -> CacheKey {
    CacheKey::new("numbers").with(number.to_le_bytes())
}

/// Files of the cache's entries.
fn files(cache: &Cache) -> Vec<PathBuf> {
    let kinds = fs::read_dir(cache.root()).unwrap().flatten().filter(|item| item.file_name() == "numbers");
    let shards = kinds.flat_map(|kind| fs::read_dir(kind.path()).unwrap().flatten());
    shards.flat_map(|shard| fs::read_dir(shard.path()).unwrap().flatten()).map(|item| item.path()).collect()
}

#[test]
fn values_come_back_and_keys_are_apart() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().join("cache"), 1 << 20);
    assert_eq!(cache.get(&key(1)), None);
    assert!(cache.put(&key(1), b"one") && cache.put(&key(2), b"") && cache.put(&key(1), b"one again"));
    assert_eq!(cache.get(&key(1)).unwrap(), b"one again");
    assert_eq!(cache.get(&key(2)).unwrap(), b"");
    let other = Cache::new(cache.root(), 1 << 20);
    assert_eq!(other.get(&key(1)).unwrap(), b"one again");
    assert!(other.contains(&key(2)) && !other.contains(&key(3)));

    let parts = CacheKey::new("numbers").with("ab").with("c");
    assert_ne!(parts, CacheKey::new("numbers").with("a").with("bc"));
    assert_ne!(parts, CacheKey::new("letters").with("ab").with("c"));

    let usage = cache.usage();
    assert_eq!((usage.len(), usage["numbers"].entries), (1, 2));
    cache.clear().unwrap();
    assert!(cache.usage().is_empty() && cache.get(&key(1)).is_none());
}

#[test]
fn a_damaged_entry_is_missing_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path(), 1 << 20);
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| bytes.truncate(3),
        |bytes| bytes[0] ^= 1,
    ];
    for damage in damages {
        assert!(cache.put(&key(1), b"some value"));
        let [file] = &files(&cache)[..] else { panic!("one entry") };
        let mut bytes = fs::read(file).unwrap();
        damage(&mut bytes);
        fs::write(file, bytes).unwrap();
        assert_eq!(cache.get(&key(1)), None);
        assert!(!file.exists());
    }
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path(), 10_000);
    for number in 0..8 {
        assert!(cache.put(&key(number), &[number as u8; 1000]));
    }
    // All as old as their number says, but for the first, which is used again.
    let day = |days| SystemTime::now() - Duration::from_secs(86_400 * days);
    for (number, file) in (0..8).map(|number| (number, files_of(&cache, number))) {
        fs::File::open(file).unwrap().set_modified(day(100 - number)).unwrap();
    }
    assert!(cache.get(&key(0)).is_some());
    for number in 8..12 {
        assert!(cache.put(&key(number), &[number as u8; 1000]));
    }
    let left: Vec<u64> = (0..12).filter(|number| cache.contains(&key(*number))).collect();
    assert!(cache.usage()["numbers"].bytes <= 10_000 + 10_000 / 16, "{left:?}");
    assert!(left.contains(&0) && left.contains(&11) && !left.contains(&1), "{left:?}");
    assert!(!cache.put(&key(99), &[0; 10_000]), "larger than the limit");
}

/// The file of a number.
fn files_of(cache: &Cache, number: u64) -> PathBuf {
    let value = [number as u8; 1000];
    files(cache).into_iter().find(|file| fs::read(file).unwrap().ends_with(&value)).unwrap()
}

#[test]
fn many_writers_stay_below_the_limit_and_read_only_whole_values() {
    let folder = tempfile::tempdir().unwrap();
    let value = |number: u64| vec![number as u8; 500 + number as usize];
    thread::scope(|scope| {
        for writer in 0..4_u64 {
            let root = folder.path();
            scope.spawn(move || {
                let cache = Cache::new(root, 20_000);
                for round in 0..50 {
                    let number = (writer * 7 + round) % 60;
                    cache.put(&key(number), &value(number));
                    if let Some(found) = cache.get(&key((number * 3) % 60)) {
                        assert_eq!(found, value((number * 3) % 60));
                    }
                }
            });
        }
    });
    let bytes: u64 = Cache::new(folder.path(), 20_000).usage()["numbers"].bytes;
    assert!(bytes <= 20_000 + 4 * 20_000 / 16, "{bytes}");
}

#[test]
fn a_folder_that_cannot_be_written_is_a_cache_without_entries() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let cache = Cache::new(&file, 1 << 20);
    assert!(!cache.put(&key(1), b"one"));
    assert_eq!(cache.get(&key(1)), None);
    assert!(cache.usage().is_empty());
}
