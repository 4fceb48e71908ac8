//! [`FIELDS`]: everything that can be known about a [`Record`], declared once.
//!
//! Filters, JSON, CSV, table columns, groups and `docs/reference/fields.md` derive from this table. To add a field,
//! add an entry to the table (and, where it is new, the member of [`Record`] that it reads). Names follow
//! OpenTelemetry, direction first. The table says what a record knows, not how it is shown: that is
//! [`format`](crate::format).

mod flags;
mod names;
mod table;
#[cfg(test)]
mod tests;
mod value;

use std::fmt::Write as _;

use crate::Record;

pub use self::{flags::TcpFlags, names::transport_name, table::FIELDS, value::Value};

pub(crate) use self::names::{protocol_number, transport_names};

/// Names of what is enumerated.
pub(crate) mod enumerated {
    pub(crate) use super::names::{confidence, detail, end_reason, initiator};
}

/// One attribute of a record.
#[derive(Clone, Copy)]
pub struct Field {
    /// Dotted name, as in `source.address`.
    pub name: &'static str,
    /// What sort of value it has.
    pub kind: Kind,
    /// Unit of the number, such as `bytes`; empty where there is none.
    pub unit: &'static str,
    /// One or two sentences for the reference.
    pub doc: &'static str,
    /// How many different values to expect.
    pub cardinality: Cardinality,
    /// Whether a filter may use it.
    pub filterable: bool,
    /// Whether records may be grouped by it.
    pub groupable: bool,
    /// Whether its values may be added, over records and over time.
    pub additive: bool,
    /// Every value it can have, where they are few and have names; empty otherwise.
    pub values: &'static [&'static str],
    /// Reads it from a record.
    pub get: fn(&Record) -> Value<'_>,
}

/// What sort of value a field has: decides how a filter compares it and how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 or IPv6 address.
    Address,
    /// Port of TCP, UDP or SCTP.
    Port,
    /// Protocol above IP: a keyword, or its number.
    Protocol,
    /// Number.
    Integer,
    /// Number of bytes.
    Bytes,
    /// Length of time; a number of seconds in JSON and CSV.
    Duration,
    /// Moment; RFC 3339 in UTC.
    Timestamp,
    /// Set of TCP flags, such as `SYN|ACK`.
    Flags,
    /// `true` or `false`.
    Boolean,
    /// Text.
    Text,
}

impl Kind {
    /// The name shown to users, with its article.
    pub const fn described(self) -> &'static str {
        match self {
            Self::Address => "an address",
            Self::Port => "a port",
            Self::Protocol => "a protocol",
            Self::Integer => "a number",
            Self::Bytes => "a number of bytes",
            Self::Duration => "a duration",
            Self::Timestamp => "a timestamp",
            Self::Flags => "a set of TCP flags",
            Self::Boolean => "a truth value",
            Self::Text => "text",
        }
    }
}

/// How many different values a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cardinality {
    /// A fixed handful.
    Low,
    /// As many as this machine has things of the kind: interfaces, processes, ports.
    Medium,
    /// No bound: addresses, counters, times.
    High,
}

impl Cardinality {
    /// `low`, `medium` or `high`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// A short name for typing. With two fields it means either end of the flow.
#[derive(Clone, Copy, Debug)]
pub struct Alias {
    /// The short name.
    pub name: &'static str,
    /// The fields it stands for, source first.
    pub fields: &'static [&'static str],
}

/// Short names. Besides these, `src.` and `dst.` stand for `source.` and `destination.`.
pub const ALIASES: &[Alias] = &[
    Alias { name: "src", fields: &["source.address"] },
    Alias { name: "dst", fields: &["destination.address"] },
    Alias { name: "sport", fields: &["source.port"] },
    Alias { name: "dport", fields: &["destination.port"] },
    Alias { name: "proto", fields: &["network.transport"] },
    Alias { name: "iface", fields: &["network.interface.name"] },
    Alias { name: "host", fields: &["source.address", "destination.address"] },
    Alias { name: "port", fields: &["source.port", "destination.port"] },
    Alias {
        name: "proc",
        fields: &["source.process.executable.name", "destination.process.executable.name"],
    },
    Alias { name: "ns", fields: &["source.k8s.namespace.name", "destination.k8s.namespace.name"] },
    Alias { name: "pod", fields: &["source.k8s.pod.name", "destination.k8s.pod.name"] },
    Alias { name: "owner", fields: &["source.k8s.owner.name", "destination.k8s.owner.name"] },
    Alias { name: "node", fields: &["source.k8s.node.name", "destination.k8s.node.name"] },
    Alias { name: "service", fields: &["source.k8s.service.name", "destination.k8s.service.name"] },
    Alias { name: "container", fields: &["source.container.name", "destination.container.name"] },
    Alias { name: "domain", fields: &["source.dns.name", "destination.dns.name"] },
    Alias { name: "rcode", fields: &["dns.response_code"] },
];

/// What a name given by a user stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One field.
    One(&'static Field),
    /// The same attribute of either end.
    Either {
        /// The short name, such as `port`.
        alias: &'static str,
        /// The attribute of the source.
        source: &'static Field,
        /// The attribute of the destination.
        destination: &'static Field,
    },
}

impl Field {
    /// The value of this field in `record`.
    pub fn value<'r>(&self, record: &'r Record) -> Value<'r> {
        (self.get)(record)
    }

    /// The field with exactly this name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|field| field.name == name)
    }
}

impl Subject {
    /// Finds a field by its name or a short name.
    pub fn by_name(name: &str) -> Option<Self> {
        if let Some(alias) = ALIASES.iter().find(|alias| alias.name == name) {
            return match alias.fields {
                [only] => Field::by_name(only).map(Self::One),
                [source, destination] => Some(Self::Either {
                    alias: alias.name,
                    source: Field::by_name(source)?,
                    destination: Field::by_name(destination)?,
                }),
                _ => None,
            };
        }
        let long = [("src.", "source."), ("dst.", "destination.")]
            .into_iter()
            .find_map(|(short, long)| Some(format!("{long}{}", name.strip_prefix(short)?)));
        Field::by_name(long.as_deref().unwrap_or(name)).map(Self::One)
    }

    /// The name to show: that of the field, or the short name for either end.
    pub fn name(&self) -> &'static str {
        match self {
            Self::One(field) => field.name,
            Self::Either { alias, .. } => alias,
        }
    }

    /// The field, or that of the source where it means either end.
    pub fn field(&self) -> &'static Field {
        match self {
            Self::One(field) | Self::Either { source: field, .. } => field,
        }
    }
}

/// The name of a field, or the short name, that is most like `wanted`; `None` where nothing is like it.
pub fn nearest_name(wanted: &str) -> Option<&'static str> {
    let wanted = wanted.to_lowercase();
    let names = || FIELDS.iter().map(|field| field.name).chain(ALIASES.iter().map(|alias| alias.name));
    let last_part = |name: &str| name.rsplit('.').next() == Some(wanted.as_str());
    if let Some(name) = names().find(|name| name.len() > wanted.len() && last_part(name)) {
        return Some(name);
    }
    let farthest = (wanted.chars().count() / 6).clamp(1, 3);
    nearest(&wanted, names()).filter(|(_, distance)| *distance <= farthest).map(|(name, _)| name)
}

/// The candidate that is most like `wanted`, and how many letters differ.
pub fn nearest<'c>(wanted: &str, candidates: impl Iterator<Item = &'c str>) -> Option<(&'c str, usize)> {
    candidates.map(|name| (name, edit_distance(wanted, name))).min_by_key(|(_, distance)| *distance)
}

/// Letters to insert, remove, replace or swap to get from `left` to `right` (optimal string alignment).
fn edit_distance(left: &str, right: &str) -> usize {
    // Nobody means a name of forty letters by one of four hundred, and the work grows with the product.
    let left: Vec<char> = left.chars().take(80).collect();
    let right: Vec<char> = right.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for row in 1..=left.len() {
        let mut current = vec![row];
        for column in 1..=right.len() {
            let differs = usize::from(left[row - 1] != right[column - 1]);
            let mut distance =
                (above[column] + 1).min(current[column - 1] + 1).min(above[column - 1] + differs);
            let swapped = row > 1
                && column > 1
                && left[row - 1] == right[column - 2]
                && left[row - 2] == right[column - 1];
            if swapped {
                distance = distance.min(before[column - 2] + 1);
            }
            current.push(distance);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[right.len()]
}

/// The reference page of all fields, in Markdown (`docs/reference/fields.md`).
pub fn reference() -> String {
    let mut page = String::from(include_str!("field/reference_head.md"));
    page.push_str("\n| field | type | group by | description |\n|---|---|---|---|\n");
    for field in FIELDS {
        let mut kind = format!("{:?}", field.kind);
        kind.make_ascii_lowercase();
        if !field.unit.is_empty() && field.unit != kind {
            kind = format!("{kind}, {}", field.unit);
        }
        let group_by = if field.groupable { field.cardinality.as_str() } else { "" };
        let mut doc = field.doc.replace('|', "\\|");
        if !field.values.is_empty() {
            write!(doc, " One of `{}`.", field.values.join("`, `")).expect("a string takes any text");
        }
        writeln!(page, "| `{}` | {kind} | {group_by} | {doc} |", field.name)
            .expect("a string takes any text");
    }
    page.push_str("\n## Short names\n\n| name | stands for |\n|---|---|\n");
    for alias in ALIASES {
        let fields: Vec<String> = alias.fields.iter().map(|field| format!("`{field}`")).collect();
        writeln!(page, "| `{}` | {} |", alias.name, fields.join(" or ")).expect("a string takes any text");
    }
    page.push_str("| `src.…`, `dst.…` | `source.…`, `destination.…` |\n");
    page
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Field").field(&self.name).finish()
    }
}

impl PartialEq for Field {
    /// Names are unique.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Field {}
