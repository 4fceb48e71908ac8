//! Durations, sizes and numbers as people write them.

use std::{fmt, time::Duration};

/// Reads a duration such as `500ms`, `1.5s`, `2m` or `1h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) =
        split(text).ok_or_else(|| "a duration is a number and a unit, such as 1s".to_owned())?;
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        "" => return Err(format!("a duration needs a unit: {text}s, {text}ms, {text}m or {text}h")),
        _ => return Err(format!("unknown unit `{unit}`: use ms, s, m, h or d")),
    };
    let duration =
        Duration::try_from_secs_f64(number * seconds).map_err(|_overflow| "too long".to_owned())?;
    if duration.is_zero() { Err("must be longer than nothing".to_owned()) } else { Ok(duration) }
}

/// Reads a size such as `64MiB`, `512KiB`, `1GB` or `65536`, in bytes.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range before")]
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) =
        split(text).ok_or_else(|| "a size is a number and a unit, such as 64MiB".to_owned())?;
    let factor = match unit {
        "" | "B" => 1.0,
        "KiB" | "K" | "k" => 1024.0,
        "MiB" | "M" => 1024.0 * 1024.0,
        "GiB" | "G" => 1024.0 * 1024.0 * 1024.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return Err(format!("unknown unit `{unit}`: use B, KiB, MiB or GiB")),
    };
    let bytes = number * factor;
    if (1.0..=1e15).contains(&bytes) { Ok(bytes as u64) } else { Err("out of range".to_owned()) }
}

/// The number at the start and the rest. Signs, exponents and words such as `inf` are no numbers here.
fn split(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// Shows a number with its thousands apart: `1,234,567`.
pub struct Grouped(pub u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                shown.push(',');
            }
            shown.push(digit);
        }
        f.pad(&shown)
    }
}

/// Shows a number of bytes roughly: `120 MiB`.
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let whole = |unit: &u64| self.0 >= *unit && self.0.is_multiple_of(*unit);
        if let Some((unit, name)) = units.into_iter().find(|(unit, _)| whole(unit)) {
            return write!(f, "{} {name}", self.0 / unit);
        }
        // From ten of a unit on, so that two digits are right.
        match units.into_iter().find(|(unit, _)| self.0 >= 10 * unit) {
            Some((unit, name)) => write!(f, "{} {name}", (self.0 + unit / 2) / unit),
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_a_length() {
        fn check(text: &str, expect: Result<Duration, &str>) {
            assert_eq!(parse_duration(text), expect.map_err(str::to_owned), "{text}");
        }
        check("1s", Ok(Duration::from_secs(1)));
        check("250ms", Ok(Duration::from_millis(250)));
        check("1.5m", Ok(Duration::from_secs(90)));
        check("2 h", Ok(Duration::from_hours(2)));
        check("5", Err("a duration needs a unit: 5s, 5ms, 5m or 5h"));
        check("0s", Err("must be longer than nothing"));
        check("3 weeks", Err("unknown unit `weeks`: use ms, s, m, h or d"));
        check("-1s", Err("a duration is a number and a unit, such as 1s"));
        check("inf", Err("a duration is a number and a unit, such as 1s"));
        check("99999999999999999999d", Err("too long"));
    }

    #[test]
    fn sizes_are_in_bytes() {
        fn check(text: &str, expect: Result<u64, &str>) {
            assert_eq!(parse_size(text), expect.map_err(str::to_owned), "{text}");
        }
        check("64MiB", Ok(64 << 20));
        check("1.5KiB", Ok(1536));
        check("1GB", Ok(1_000_000_000));
        check("4096", Ok(4096));
        check("0", Err("out of range"));
        check("64Mib", Err("unknown unit `Mib`: use B, KiB, MiB or GiB"));
        check("much", Err("a size is a number and a unit, such as 64MiB"));
    }

    #[test]
    fn sizes_are_shown_for_people() {
        assert_eq!(Size(0).to_string(), "0 B");
        assert_eq!(Size(9_000).to_string(), "9000 B");
        assert_eq!(Size(125_600_000).to_string(), "120 MiB");
        assert_eq!(Size(512 << 20).to_string(), "512 MiB");
        assert_eq!(Size(1 << 30).to_string(), "1 GiB");
    }

    #[test]
    fn numbers_are_shown_for_people() {
        assert_eq!(Grouped(0).to_string(), "0");
        assert_eq!(Grouped(999).to_string(), "999");
        assert_eq!(Grouped(1_234_567).to_string(), "1,234,567");
    }
}
