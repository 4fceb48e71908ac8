//! Reads and writes the values in a filter: addresses, numbers with units, ranges, flags.

use std::{
    fmt::{self, Display as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use jiff::Timestamp;

use super::{Operator, Pattern, Prefix, lexer};
use crate::{
    Wall,
    field::{self, Field, Kind, TcpFlags, Value, protocol_number, transport_name, transport_names},
};

/// Why a value does not fit its field.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) suggestion: Option<String>,
}

/// Units of counts, longer ones first.
const COUNT_UNITS: [(&str, u64); 9] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("K", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

/// Units of durations in nanoseconds; in writing, the first that divides is taken.
const DURATION_UNITS: [(&str, u64); 8] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
];

pub(super) fn pattern(field: &Field, operator: Operator, text: &str) -> Result<Pattern, Wrong> {
    if text.is_empty() && (operator == Operator::Like || field.kind != Kind::Text) {
        return Err(Wrong::new("the value is empty"));
    }
    match field.kind {
        Kind::Address => prefix(text).map(Pattern::Prefix),
        Kind::Protocol => protocol(text),
        Kind::Port => range(text, |end| number(end, "a port", u16::MAX.into(), &[])),
        Kind::Integer | Kind::Bytes => range(text, count),
        Kind::Duration => range(text, duration),
        Kind::Timestamp => timestamp(text).map(|moment| Pattern::Range(moment, moment)),
        Kind::Flags => flags(text),
        Kind::Boolean => match text {
            "true" => Ok(Pattern::Boolean(true)),
            "false" => Ok(Pattern::Boolean(false)),
            _ => Err(Wrong::new(format!("`{text}` is neither `true` nor `false`"))),
        },
        Kind::Text => word(field, operator, text),
    }
}

/// The condition that somebody means who writes just a value, such as `10.0.0.1` for `host=10.0.0.1`.
pub(super) fn condition_with(text: &str) -> Option<String> {
    if ["ipv4", "ipv6"].contains(&text) {
        Some(format!("network.type={text}"))
    } else if prefix(text).is_ok() {
        Some(format!("host={text}"))
    } else if protocol_number(text).is_some() {
        Some(format!("proto={text}"))
    } else if text.parse::<u16>().is_ok() {
        Some(format!("port={text}"))
    } else {
        None
    }
}

impl Wrong {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), suggestion: None }
    }

    fn suggesting(self, suggestion: impl Into<String>) -> Self {
        Self { suggestion: Some(suggestion.into()), ..self }
    }

    /// A value that is not one of a few; suggests the one that is most like it.
    fn unknown<'n>(message: String, text: &str, names: impl Iterator<Item = &'n str>) -> Self {
        let near = field::nearest(&text.to_lowercase(), names).filter(|(_, distance)| *distance <= 2);
        Self { message, suggestion: near.map(|(name, _)| name.to_owned()) }
    }
}

impl Prefix {
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => network == masked_ipv4(address, self.length),
            (IpAddr::V6(network), IpAddr::V6(address)) => network == masked_ipv6(address, self.length),
            _ => false,
        }
    }

    fn is_one_address(&self) -> bool {
        self.length == if self.address.is_ipv4() { 32 } else { 128 }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        if self.is_one_address() { Ok(()) } else { write!(f, "/{}", self.length) }
    }
}

fn masked_ipv4(address: Ipv4Addr, length: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn masked_ipv6(address: Ipv6Addr, length: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

/// An address (IPv6 in brackets or not) or a prefix; bits beyond the prefix are ignored.
fn prefix(text: &str) -> Result<Prefix, Wrong> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let inner = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let Ok(address) = inner.parse::<IpAddr>() else {
        let example = "such as 10.0.0.1, 10.0.0.0/8 or fd00::/8";
        return Err(Wrong::new(format!("`{text}` is not an address or prefix, {example}")));
    };
    let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => longest,
        Some(length) => length.parse().ok().filter(|length| *length <= longest).ok_or_else(|| {
            Wrong::new(format!("`/{length}` is not the length of a prefix: it is a number up to {longest}"))
        })?,
    };
    let address = match address {
        IpAddr::V4(address) => IpAddr::V4(masked_ipv4(address, length)),
        IpAddr::V6(address) => IpAddr::V6(masked_ipv6(address, length)),
    };
    Ok(Prefix { address, length })
}

fn protocol(text: &str) -> Result<Pattern, Wrong> {
    if let Some(number) = protocol_number(text) {
        return Ok(Pattern::Range(number.into(), number.into()));
    }
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return range(text, |end| number(end, "the number of a protocol", u8::MAX.into(), &[]));
    }
    let message = format!("unknown protocol `{text}`: use its IANA keyword or number");
    Err(Wrong::unknown(message, text, transport_names()))
}

fn flags(text: &str) -> Result<Pattern, Wrong> {
    let flags = TcpFlags::parse(text).map_err(|part| {
        let message = format!("unknown TCP flag `{part}`: write them as SYN|ACK");
        let names: Vec<String> = TcpFlags::names().map(str::to_ascii_lowercase).collect();
        let wrong = Wrong::unknown(message, part, names.iter().map(String::as_str));
        Wrong { suggestion: wrong.suggestion.map(|name| name.to_ascii_uppercase()), ..wrong }
    })?;
    Ok(Pattern::Flags(flags.0))
}

fn word(field: &Field, operator: Operator, text: &str) -> Result<Pattern, Wrong> {
    if operator == Operator::Like || field.values.is_empty() {
        return Ok(Pattern::Text(text.to_owned()));
    }
    let known = field.values.iter().find(|value| value.eq_ignore_ascii_case(text));
    known.map(|value| Pattern::Text((*value).to_owned())).ok_or_else(|| {
        let message = format!("`{}` is never `{text}`: it is one of {}", field.name, field.values.join(", "));
        Wrong::unknown(message, text, field.values.iter().copied())
    })
}

/// `5` or `5-9`.
fn range(text: &str, end: impl Fn(&str) -> Result<u64, Wrong>) -> Result<Pattern, Wrong> {
    let Some((low_text, high_text)) = text.split_once('-') else {
        return end(text).map(|only| Pattern::Range(only, only));
    };
    let (low, high) = (end(low_text)?, end(high_text)?);
    if low > high {
        let wrong = Wrong::new(format!("the range `{text}` is empty"));
        return Err(wrong.suggesting(format!("{high_text}-{low_text}")));
    }
    Ok(Pattern::Range(low, high))
}

fn count(text: &str) -> Result<u64, Wrong> {
    // `10kB` and `64KiB` are as good as `10k` and `64Ki`.
    let without_b = text.strip_suffix('B').unwrap_or(text);
    number(without_b, "a number", u64::MAX, &COUNT_UNITS)
}

fn duration(text: &str) -> Result<u64, Wrong> {
    if text != "0" && text.ends_with(|last: char| last.is_ascii_digit()) {
        let wrong = Wrong::new(format!("`{text}` needs a unit: ns, us, ms, s, m, h or d"));
        return Err(wrong.suggesting(format!("{text}ms")));
    }
    number(text, "a duration", u64::MAX, &DURATION_UNITS)
}

fn timestamp(text: &str) -> Result<u64, Wrong> {
    let moment: Option<Timestamp> = text.parse().ok();
    moment
        .and_then(|moment| u64::try_from(moment.as_nanosecond()).ok())
        .ok_or_else(|| Wrong::new(format!("`{text}` is not a timestamp such as 2026-01-31T12:00:00Z")))
}

/// Digits, maybe with a decimal point, and a unit.
fn number(text: &str, what: &str, highest: u64, units: &[(&str, u64)]) -> Result<u64, Wrong> {
    let digits_end =
        text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let scale = if unit.is_empty() {
        Some(1)
    } else {
        units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale)
    };
    let Some(scale) = scale else {
        let known: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        return Err(Wrong::new(if digits.is_empty() || known.is_empty() {
            format!("`{text}` is not {what}")
        } else {
            format!("unknown unit `{unit}`: use {}", known.join(", "))
        }));
    };
    let number = scaled(digits, scale).ok_or_else(|| Wrong::new(format!("`{text}` is not {what}")))?;
    u64::try_from(number)
        .ok()
        .filter(|number| *number <= highest)
        .ok_or_else(|| Wrong::new(format!("`{text}` is too large: {what} is at most {highest}")))
}

/// `digits`, maybe with a decimal point, times `scale`, where that is a whole number.
fn scaled(digits: &str, scale: u64) -> Option<u128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |part: &str| part.bytes().all(|digit| digit.is_ascii_digit());
    if whole.is_empty() || digits.ends_with('.') || !plain(whole) || !plain(fraction) || fraction.len() > 18 {
        return None;
    }
    let scale = u128::from(scale);
    let whole: u128 = whole.parse().unwrap_or(u128::MAX);
    let parts: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let divisor = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let product = parts * scale;
    product.is_multiple_of(divisor).then(|| whole.saturating_mul(scale).saturating_add(product / divisor))
}

/// A pattern with the kind of its field, for writing.
pub(super) struct Written<'p>(pub(super) Kind, pub(super) &'p Pattern);

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Pattern::Prefix(prefix) => prefix.fmt(f),
            Pattern::Range(low, high) if low == high => write_number(self.0, *low, f),
            Pattern::Range(low, high) if self.0 == Kind::Protocol => write!(f, "{low}-{high}"),
            Pattern::Range(low, high) => {
                write_number(self.0, *low, f)?;
                f.write_str("-")?;
                write_number(self.0, *high, f)
            }
            Pattern::Flags(flags) => TcpFlags(*flags).fmt(f),
            Pattern::Boolean(truth) => truth.fmt(f),
            Pattern::Text(text) => write_word(text, f),
        }
    }
}

fn write_number(kind: Kind, number: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match kind {
        Kind::Duration => {
            let divides = |(_, scale): &&(&str, u64)| number.is_multiple_of(*scale);
            let second = ("s", 1_000_000_000);
            let (unit, scale) =
                if number == 0 { second } else { *DURATION_UNITS.iter().find(divides).unwrap_or(&("ns", 1)) };
            write!(f, "{}{unit}", number / scale)
        }
        Kind::Timestamp => Value::Timestamp(Wall(number)).fmt(f),
        Kind::Protocol => match u8::try_from(number).ok().and_then(transport_name) {
            Some(name) => f.write_str(name),
            None => number.fmt(f),
        },
        _ => number.fmt(f),
    }
}

/// Text, in quotes unless it is plainly one word.
fn write_word(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let is_plain = |letter: char| letter.is_alphanumeric() || "._:/*?@%+-".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) && !lexer::is_keyword(text) {
        return f.write_str(text);
    }
    write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
