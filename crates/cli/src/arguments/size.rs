//! Sizes in bytes on the command line.

use bytesize::ByteSize;

/// A number of bytes with a unit of powers of 1000 (kB, MB, GB) or 1024 (KiB, MiB, GiB), such as `5GB`, `2.5 GiB` or `800000000`; not 0.
///
/// # Errors
/// Text that is not such a size, or one beyond 64 bits.
pub fn size(text: &str) -> Result<u64, String> {
    let size = text.trim().parse().map(|ByteSize(bytes)| bytes).ok();
    // A size beyond 64 bits is read as the largest.
    size.filter(|bytes| (1..u64::MAX).contains(bytes))
        .ok_or_else(|| format!("`{text}` is not a size; write one such as 4GiB, 900MB or 2000000000"))
}

/// As [`size`], for a cache.
///
/// # Errors
/// As [`size`]; for 0 the error names the option that turns the cache off.
pub fn cache_size(text: &str) -> Result<u64, String> {
    match text.trim().parse() {
        Ok(ByteSize(0)) => Err("a cache of size 0 keeps nothing; `--no-cache` turns the cache off".to_owned()),
        _ => size(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_both_kinds() {
        for (text, bytes) in [
            ("5GB", 5_000_000_000),
            ("800 mb", 800_000_000),
            ("2GiB", 2 << 30),
            ("2.5 GB", 2_500_000_000),
            ("1024", 1024),
            (" 17 B ", 17),
            ("4gib", 4 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "GiB", "-1GB", "4 elephants", "0", "0GB", "0.0", "1e400", "99999999999GB", "1.2.3MB", "nan"] {
            let error = size(bad).expect_err(bad);
            assert_eq!(error, format!("`{bad}` is not a size; write one such as 4GiB, 900MB or 2000000000"));
        }
    }

    #[test]
    fn a_cache_of_nothing_is_no_cache() {
        assert!(cache_size("0 GB").expect_err("empty").contains("--no-cache"));
        assert_eq!(cache_size("1GB"), Ok(1_000_000_000));
        assert!(cache_size("big").expect_err("no size").contains("is not a size"));
    }
}
