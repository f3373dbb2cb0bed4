//! Sizes and durations as people write them: `100MiB`, `120s`. In variables, in jobs and on command lines alike.

use std::time::Duration;

/// A value, or the rest of a sentence that begins with what it is the value of.
pub(crate) type Parsed<T> = Result<T, String>;

/// A size: a number with `B`, `KiB`, `MiB` or `GiB`.
///
/// # Errors
/// A sentence part that follows the variable's name.
pub fn size(text: &str) -> Parsed<u64> {
    const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
    let wrong = || format!("is '{text}', not a size: write a number with B, KiB, MiB or GiB, such as 100MiB");
    let bytes = with_unit(text, &UNITS).ok_or_else(wrong)?;
    if bytes == 0 {
        Err(format!("is '{text}': a size of nothing allows nothing"))
    } else {
        Ok(bytes)
    }
}

/// A duration: a number with `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// A sentence part that follows the variable's name.
pub fn duration(text: &str) -> Parsed<Duration> {
    const UNITS: [(&str, u64); 5] = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    let milliseconds = with_unit(text, &UNITS)
        .ok_or_else(|| format!("is '{text}', not a duration: write a number with ms, s, m, h or d, such as 120s"))?;
    if milliseconds == 0 {
        return Err(format!("is '{text}': a duration of nothing allows nothing"));
    }
    Ok(Duration::from_millis(milliseconds))
}

/// The number times its unit; decimals are taken where they make a whole.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = (&text[..end], text[end..].trim());
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut total = whole.parse::<u64>().ok()?.checked_mul(*factor)?;
    if number.contains('.') {
        let digits = u32::try_from(fraction.len())
            .ok()
            .filter(|digits| (1..=9).contains(digits))?;
        total = total.checked_add(fraction.parse::<u64>().ok()?.checked_mul(*factor)? / 10_u64.pow(digits))?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1B", 1),
            ("64KiB", 65_536),
            ("1.5MiB", 1_572_864),
            ("2 GiB", 2_147_483_648),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "100",
            "100MB",
            "MiB",
            "-1B",
            "1e3B",
            "0B",
            "1.B",
            "99999999999999GiB",
            "1.5.5MiB",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("5ms", 5),
            ("1s", 1000),
            ("1.5m", 90_000),
            ("12h", 43_200_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "1", "s", "1 week", "-1s", "0s", "1S"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
