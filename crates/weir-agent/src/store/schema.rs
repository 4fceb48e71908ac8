//! The columns in which raw flows are kept: one for each field of a record, and two of the store's own.
//!
//! A new entry in the table of fields becomes a column by itself; segments that were written before it have no value
//! there. What follows from other columns is not kept (`flow.start`, `flow.end`, `flow.community_id`), and what hardly differs
//! from another column is kept as the difference, which takes next to no room ([`Source::Before`], [`Source::Joined`]).

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use arrow_schema::{DataType, Field as ArrowField, Schema, SchemaRef, TimeUnit};
use weir_flow::field::{FIELDS, Field, Kind};

/// Column: when the record was made, by the clock of the node. Segments are sorted by it, queries select by it.
pub(super) const RECORDED: &str = "weir.recorded";

/// Column: whether the same flow was also seen at another interface of the same role, and counts there.
pub(super) const AGAIN: &str = "weir.again";

/// Column: how long before that the last packet of the flow was; takes less room than the time itself.
pub(super) const LAG: &str = "weir.lag";

/// Column: how much later the flow began than its end and duration say. Wall and monotonic clock do not go evenly, but the
/// beginning of a flow must stay what it was: it tells flows apart. Zero in the first record of each flow.
pub(super) const SKEW: &str = "weir.skew";

/// How the values of a column are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    /// Text of few different values: numbers into a dictionary.
    Dictionary,
    /// 16 bits.
    Port,
    /// 64 bits without sign.
    Number,
    /// 64 bits with sign.
    Signed,
    /// One bit.
    Truth,
    /// Nanoseconds since 1970.
    Moment,
    /// Milliseconds since 1970.
    Tick,
    /// Nanoseconds.
    Length,
}

/// Where the values of a column come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// The field of the same name.
    Field(&'static Field),
    /// A total less the counter of the interval: what the flow had before. Zero in the first record of each flow.
    Before { total: &'static Field, interval: &'static Field },
    /// Packets less buffers of the kernel: zero where nothing was segmented or joined.
    Joined { packets: &'static Field, skbs: &'static Field },
    /// The time of the batch.
    Recorded,
    /// From the end of the flow to the time of the batch.
    Lag,
    /// [`SKEW`].
    Skew,
    /// [`AGAIN`].
    Again,
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) storage: Storage,
    pub(super) source: Source,
}

/// How a field is had from columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It is this column.
    Column(usize),
    /// The sum of two columns: what was before, and the interval.
    Sum(usize, usize),
    /// The difference of two columns: packets, and those that were joined.
    Difference(usize, usize),
    /// The time of the batch less the lag.
    End { recorded: usize, lag: usize },
    /// The same less the duration, and the skew more.
    Start { recorded: usize, lag: usize, duration: usize, skew: usize },
    /// By rebuilding the record.
    Rebuilt,
}

/// Counters kept as differences: name of the column, and the fields.
const BEFORE: [(&str, &str, &str); 4] = [
    ("flow.before.bytes", "flow.total.bytes", "flow.bytes"),
    ("flow.before.packets", "flow.total.packets", "flow.packets"),
    ("flow.reverse.before.bytes", "flow.reverse.total.bytes", "flow.reverse.bytes"),
    ("flow.reverse.before.packets", "flow.reverse.total.packets", "flow.reverse.packets"),
];
const JOINED: [(&str, &str, &str); 2] = [
    ("flow.joined", "flow.packets", "flow.skbs"),
    ("flow.reverse.joined", "flow.reverse.packets", "flow.reverse.skbs"),
];

/// Fields that follow from other columns.
const DERIVED: [&str; 3] = ["flow.start", "flow.end", "flow.community_id"];

/// Every column, in the order of the files.
pub(super) static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(columns);

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let fields = COLUMNS.iter().map(|column| ArrowField::new(column.name, column.storage.data_type(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
});

/// The schema of a segment.
pub(super) fn schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// Position of a column in [`COLUMNS`].
pub(super) fn position(name: &str) -> Option<usize> {
    COLUMNS.iter().position(|column| column.name == name)
}

static ACCESS: LazyLock<HashMap<&'static str, Access>> =
    LazyLock::new(|| FIELDS.iter().map(|field| (field.name, find_access(field))).collect());

/// How a field is had from columns.
pub(super) fn access(field: &Field) -> Access {
    ACCESS.get(field.name).copied().unwrap_or(Access::Rebuilt)
}

fn find_access(field: &Field) -> Access {
    let find = |name| position(name).expect("the table of columns has it");
    if let Some(column) = position(field.name) {
        return Access::Column(column);
    }
    if let Some((name, _, interval)) = BEFORE.iter().find(|(_, total, _)| *total == field.name) {
        return Access::Sum(find(name), find(interval));
    }
    if let Some((name, packets, _)) = JOINED.iter().find(|(_, _, skbs)| *skbs == field.name) {
        return Access::Difference(find(packets), find(name));
    }
    let (recorded, lag) = (find(RECORDED), find(LAG));
    match field.name {
        "flow.end" => Access::End { recorded, lag },
        "flow.start" => Access::Start { recorded, lag, duration: find("flow.duration"), skew: find(SKEW) },
        _ => Access::Rebuilt,
    }
}

/// The columns that it takes to know a field, added to `columns`.
pub(super) fn require(field: &Field, columns: &mut Vec<usize>) {
    match access(field) {
        Access::Column(only) => columns.push(only),
        Access::Sum(left, right)
        | Access::Difference(left, right)
        | Access::End { recorded: left, lag: right } => columns.extend([left, right]),
        Access::Start { recorded, lag, duration, skew } => columns.extend([recorded, lag, duration, skew]),
        Access::Rebuilt => columns.extend(0..COLUMNS.len()),
    }
}

impl Storage {
    /// The type in arrow.
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Dictionary => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            Self::Port => DataType::UInt16,
            Self::Number => DataType::UInt64,
            Self::Signed | Self::Length => DataType::Int64,
            Self::Truth => DataType::Boolean,
            Self::Moment => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            Self::Tick => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        }
    }

    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Address | Kind::Protocol | Kind::Flags | Kind::Text => Self::Dictionary,
            Kind::Port => Self::Port,
            Kind::Integer | Kind::Bytes => Self::Number,
            Kind::Duration => Self::Length,
            Kind::Timestamp => Self::Moment,
            Kind::Boolean => Self::Truth,
        }
    }
}

fn columns() -> Vec<Column> {
    let field = |name: &str| Field::by_name(name).expect("the table of fields has it");
    let mut columns = vec![
        Column { name: RECORDED, storage: Storage::Tick, source: Source::Recorded },
        Column { name: LAG, storage: Storage::Length, source: Source::Lag },
        Column { name: SKEW, storage: Storage::Signed, source: Source::Skew },
    ];
    for candidate in FIELDS {
        if DERIVED.contains(&candidate.name) {
            continue;
        }
        let before = BEFORE.iter().find(|(_, total, _)| *total == candidate.name);
        let joined = JOINED.iter().find(|(_, _, skbs)| *skbs == candidate.name);
        columns.push(if let Some((name, total, interval)) = before {
            let source = Source::Before { total: field(total), interval: field(interval) };
            Column { name, storage: Storage::Signed, source }
        } else if let Some((name, packets, skbs)) = joined {
            let source = Source::Joined { packets: field(packets), skbs: field(skbs) };
            Column { name, storage: Storage::Signed, source }
        } else {
            let storage = Storage::of(candidate.kind);
            Column { name: candidate.name, storage, source: Source::Field(candidate) }
        });
    }
    columns.push(Column { name: AGAIN, storage: Storage::Truth, source: Source::Again });
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_can_be_had_from_the_columns() {
        for field in FIELDS {
            let rebuilt = access(field) == Access::Rebuilt;
            assert_eq!(rebuilt, field.name == "flow.community_id", "{}", field.name);
        }
    }

    #[test]
    fn names_of_columns_are_unique() {
        for (index, column) in COLUMNS.iter().enumerate() {
            assert_eq!(position(column.name), Some(index), "{}", column.name);
        }
    }
}
