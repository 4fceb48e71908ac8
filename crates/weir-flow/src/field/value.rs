//! [`Value`]: what a field of one record holds.

use std::{borrow::Cow, fmt, net::IpAddr, time::Duration};

use jiff::Timestamp;

use super::{Kind, TcpFlags, names};
use crate::Wall;

/// The value of a field. `Display` writes it as CSV and tables do; the absent value is empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value<'r> {
    /// Not known, or the record has no such thing.
    Absent,
    /// An address.
    Address(IpAddr),
    /// Number of a protocol; shown as its keyword.
    Protocol(u8),
    /// A port, a count, an identifier.
    Integer(u64),
    /// A length of time; shown in seconds.
    Duration(Duration),
    /// A moment; shown as RFC 3339 in UTC, with nine digits of a second.
    Timestamp(Wall),
    /// TCP flags.
    Flags(TcpFlags),
    /// Yes or no.
    Boolean(bool),
    /// Text.
    Text(Cow<'r, str>),
}

impl<'r> Value<'r> {
    /// The text, or `Absent` where there is none.
    pub(super) fn text(text: Option<&'r str>) -> Self {
        text.map_or(Self::Absent, |text| Self::Text(Cow::Borrowed(text)))
    }

    /// The number, or `Absent` where there is none.
    pub(super) fn integer<N: Into<u64>>(number: Option<N>) -> Self {
        number.map_or(Self::Absent, |number| Self::Integer(number.into()))
    }

    /// An identifier in which zero means unknown.
    pub(super) fn identifier(number: u64) -> Self {
        Self::integer((number != 0).then_some(number))
    }

    /// Reads what `Display` writes for a value of this kind; `None` if it is something else. Empty text is a value of
    /// text only.
    pub fn read(kind: Kind, text: &str) -> Option<Value<'static>> {
        Some(match kind {
            Kind::Address => Value::Address(text.parse().ok()?),
            Kind::Protocol => Value::Protocol(names::protocol_number(text).or_else(|| text.parse().ok())?),
            Kind::Port | Kind::Integer | Kind::Bytes => Value::Integer(text.parse().ok()?),
            Kind::Duration => Value::Duration(read_seconds(text)?),
            Kind::Timestamp => {
                let moment: Timestamp = text.parse().ok()?;
                Value::Timestamp(Wall(u64::try_from(moment.as_nanosecond()).ok()?))
            }
            Kind::Flags => Value::Flags(TcpFlags::parse(text).ok()?),
            Kind::Boolean => Value::Boolean(text.parse().ok()?),
            Kind::Text => Value::Text(Cow::Owned(text.to_owned())),
        })
    }

    /// Whether there is no value.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => Ok(()),
            Self::Address(address) => address.fmt(f),
            Self::Protocol(number) => match names::transport_name(*number) {
                Some(name) => f.write_str(name),
                None => number.fmt(f),
            },
            Self::Integer(number) => number.fmt(f),
            Self::Duration(duration) => seconds(*duration, f),
            Self::Timestamp(wall) => write!(f, "{:.9}", timestamp(*wall)),
            Self::Flags(flags) => flags.fmt(f),
            Self::Boolean(truth) => truth.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Every number of nanoseconds that fits `Wall` is before the year 2555, well within what jiff can hold.
pub(super) fn timestamp(wall: Wall) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(wall.0)).expect("2^64 ns after 1970 is a valid time")
}

/// Seconds as a decimal number without needless digits: `0`, `0.013`, `62.5`.
fn seconds(duration: Duration, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{}", duration.as_secs())?;
    let mut fraction = duration.subsec_nanos();
    if fraction == 0 {
        return Ok(());
    }
    let mut digits = 9;
    while fraction.is_multiple_of(10) {
        fraction /= 10;
        digits -= 1;
    }
    write!(f, ".{fraction:0digits$}")
}

/// Reads what [`seconds`] writes, without the rounding that a floating point number would bring.
fn read_seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = fraction.parse::<u32>().ok()? * 10_u32.pow(9 - u32::try_from(fraction.len()).ok()?);
    Some(Duration::new(whole.parse().ok()?, nanoseconds))
}
