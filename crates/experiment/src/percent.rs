//! Fractions as people write them in per cent: exact and no longer than need be, or counted shares with two decimals.

/// A fraction in per cent, without the sign: 0.625 is `62.5`, 0.001 is `0.1`. The digits are those of the fraction's own shortest text with the
/// point moved, so fractions that differ never look the same.
pub fn percent(fraction: f64) -> String {
    if !fraction.is_finite() {
        return fraction.to_string();
    }
    let text = fraction.abs().to_string();
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    let padded = format!("{decimals:0<2}");
    let (moved, rest) = padded.split_at(2);
    let digits = format!("{whole}{moved}");
    let digits = match digits.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let sign = if fraction < 0.0 { "-" } else { "" };
    match rest.trim_end_matches('0') {
        "" => format!("{sign}{digits}"),
        rest => format!("{sign}{digits}.{rest}"),
    }
}

/// A counted share in per cent with two decimals and the sign: `62.50 %`. What is not all or nothing is never rounded to it.
pub fn rounded_percent(share: f64) -> String {
    let text = format!("{:.2} %", share * 100.0);
    match text.as_str() {
        "0.00 %" if share > 0.0 => "<0.01 %".to_owned(),
        "100.00 %" if share < 1.0 => ">99.99 %".to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::{percent, rounded_percent};

    #[test]
    fn a_share_that_is_not_all_or_nothing_never_looks_so() {
        let shown: Vec<String> = [0.0, 1e-9, 0.5, 0.99999, 1.0].map(rounded_percent).into();
        assert_eq!(shown, ["0.00 %", "<0.01 %", "50.00 %", ">99.99 %", "100.00 %"]);
    }

    #[test]
    fn per_cent_is_exact_and_short() {
        let cases = [
            (0.0, "0"),
            (1.0, "100"),
            (0.5, "50"),
            (0.07, "7"),
            (0.625, "62.5"),
            (0.995, "99.5"),
            (0.001, "0.1"),
            (0.704, "70.4"),
            (1e-9, "0.0000001"),
            (0.1 + 0.2, "30.000000000000004"),
            (12.0, "1200"),
            (-0.25, "-25"),
        ];
        for (fraction, text) in cases {
            assert_eq!(percent(fraction), text);
        }
    }
}
