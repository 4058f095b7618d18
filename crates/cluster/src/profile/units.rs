//! Times and sizes as profiles write them.

/// Seconds of `90s`, `45min`, `4h`, `2d`, sums such as `1h30min`, and Slurm's `04:00:00` and `1-12:00:00`.
///
/// A bare number and `04:00` are refused: Slurm reads minutes there, people mean hours.
pub(crate) fn seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.contains(':') {
        return clock(text);
    }
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match &rest[digits..digits + letters] {
            "s" => 1,
            "min" | "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = rest[digits + letters..].trim_start();
    }
    (!text.is_empty()).then_some(total)
}

/// `HH:MM:SS` with days in front or not.
fn clock(text: &str) -> Option<u64> {
    let (days, clock) = text.split_once('-').unwrap_or(("0", text));
    let parts: Vec<u64> = clock.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hours, minutes, seconds] = parts[..] else { return None };
    let days: u64 = days.parse().ok()?;
    (minutes < 60 && seconds < 60)
        .then(|| days.checked_mul(24)?.checked_add(hours)?.checked_mul(3600)?.checked_add(minutes * 60 + seconds))?
}

/// Slurm's form of a number of whole minutes.
pub(crate) fn slurm_time(minutes: u64) -> String {
    let (days, hours, minutes) = (minutes / 1440, minutes / 60 % 24, minutes % 60);
    match days {
        0 => format!("{hours:02}:{minutes:02}:00"),
        _ => format!("{days}-{hours:02}:{minutes:02}:00"),
    }
}

/// MiB of `64G`, `1500M`, `1T`; a `B` or `iB` behind changes nothing: Slurm counts in powers of 1024 whatever is written.
pub(crate) fn mebibytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start().to_ascii_uppercase();
    let factor = match unit.trim_end_matches('B').trim_end_matches('I') {
        "M" => 1,
        "G" => 1 << 10,
        "T" => 1 << 20,
        _ => return None,
    };
    number.checked_mul(factor).filter(|&size| size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_or_three_parts() {
        let good = ["90s", "45min", "4h", "1h30min", "1h 30min", "2d", "04:00:00", "1-12:00:00", "100:00:00"];
        let read: Vec<u64> = good.iter().filter_map(|text| seconds(text)).collect();
        assert_eq!(read, [90, 2700, 14400, 5400, 5400, 172_800, 14400, 129_600, 360_000]);
        for bad in ["", "60", "04:00", "4 hours", "h", "1h30", "-1h", "1:99:00", "x-01:00:00", "99999999999999999999d"]
        {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn minutes_are_written_as_slurm_reads_them() {
        let written: Vec<String> = [1, 60, 240, 1440, 2190].map(slurm_time).into();
        assert_eq!(written, ["00:01:00", "01:00:00", "04:00:00", "1-00:00:00", "1-12:30:00"]);
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        let read: Vec<_> = ["64G", "64GB", "64GiB", "1500M", "2T", "64 g"].map(mebibytes).into();
        assert_eq!(read, [Some(65536), Some(65536), Some(65536), Some(1500), Some(2 << 20), Some(65536)]);
        for bad in ["", "64", "G", "0G", "64K", "-1G", "64X", "1.5G"] {
            assert_eq!(mebibytes(bad), None, "{bad}");
        }
    }
}
