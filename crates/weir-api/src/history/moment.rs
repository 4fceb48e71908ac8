//! [`Moment`]: points in time as people name them.

use std::{str::FromStr, time::Duration};

use weir_flow::{
    Wall,
    field::{Kind, Value},
};

/// A moment: so long ago (`5m`, `1h30m`, `now`), or a time (RFC 3339).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long before now.
    Ago(Duration),
    /// Then.
    At(Wall),
}

impl Moment {
    /// The time on the clock. What would be before 1970 is 1970.
    pub fn wall(self, now: Wall) -> Wall {
        match self {
            Self::Ago(ago) => Wall(now.0.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX))),
            Self::At(wall) => wall,
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "now" {
            return Ok(Self::Ago(Duration::ZERO));
        }
        if let Some(Value::Timestamp(wall)) = Value::read(Kind::Timestamp, text) {
            return Ok(Self::At(wall));
        }
        ago(text).map(Self::Ago).ok_or_else(|| {
            "use how long ago (30s, 5m, 2h, 1d), a time (2026-01-31T12:00:00Z), or now".to_owned()
        })
    }
}

/// Numbers with units, one after another: `1h30m`.
fn ago(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut all = Duration::ZERO;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|letter: char| !letter.is_ascii_digit())?);
        let (unit, after) =
            after.split_at(after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len()));
        let seconds = match unit {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            _ => return None,
        };
        let seconds = number.parse::<u64>().ok()?.checked_mul(seconds)?;
        all = all.checked_add(Duration::from_secs(seconds))?;
        rest = after;
    }
    (!text.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_ago_or_times() {
        let now = Wall(1_000_000_000_000_000);
        let check = |text: &str, expect: Option<u64>| {
            let found = text.parse::<Moment>().ok().map(|moment| moment.wall(now).0);
            assert_eq!(found, expect, "{text}");
        };
        check("now", Some(now.0));
        check("5m", Some(now.0 - 300_000_000_000));
        check("1h30m", Some(now.0 - 5_400_000_000_000));
        check("9999999w", Some(0));
        check("1970-01-01T00:00:01Z", Some(1_000_000_000));
        check("1970-01-01T01:00:01+01:00", Some(1_000_000_000));
        for wrong in ["", "5", "m", "5x", "5 m", "-5m", "yesterday", "99999999999999999999s", "2026-01-31"] {
            check(wrong, None);
        }
    }
}
