//! Wall times as people read them: in the time zone of this machine.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::{Timestamp, tz::TimeZone};
use weir_flow::Wall;

/// This moment.
pub(crate) fn now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// The local time of day, `23:33:50`.
pub(crate) fn local_time(wall: Wall) -> String {
    time_of_day(wall, TimeZone::system())
}

/// The local time of day to the microsecond, `23:33:50.123456`.
pub(crate) fn local_time_of_packet(wall: Wall) -> String {
    let timestamp = Timestamp::from_nanosecond(i128::from(wall.0)).unwrap_or_default();
    timestamp.to_zoned(TimeZone::system()).strftime("%H:%M:%S.%6f").to_string()
}

fn time_of_day(wall: Wall, zone: TimeZone) -> String {
    // 2^64 ns after 1970 is in the year 2554, which is a valid time.
    let timestamp = Timestamp::from_nanosecond(i128::from(wall.0)).unwrap_or_default();
    timestamp.to_zoned(zone).strftime("%H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_that_of_the_zone() {
        let wall = Wall(1_700_000_000_999_999_999);
        assert_eq!(time_of_day(wall, TimeZone::UTC), "22:13:20");
        assert_eq!(time_of_day(wall, TimeZone::fixed(jiff::tz::offset(1))), "23:13:20");
        assert_eq!(time_of_day(Wall(u64::MAX), TimeZone::UTC), "23:34:33");
    }
}
