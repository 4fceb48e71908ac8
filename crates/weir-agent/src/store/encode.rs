//! Records into columns.

use std::{borrow::Cow, sync::Arc};

use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Int32Array, Int64Array, StringArray, TimestampMillisecondArray,
    TimestampNanosecondArray, UInt16Array, UInt64Array,
};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weir_flow::{
    Record, Tick, Wall,
    field::{Field, Value},
};

use super::{
    batch::Batch,
    schema::{COLUMNS, Column, Source, Storage},
};
use crate::batch::seen_again;

/// Records that are read column by column before the next ones, so that they stay in the cache.
const BLOCK: usize = 512;

/// Puts the records of one tick into columns, in batches of at most `most` rows.
pub(super) fn batches(records: &[Record], tick: &Tick, most: usize) -> impl Iterator<Item = Batch> {
    let again = seen_again(records);
    let recorded_ms = i64::try_from(tick.wall.0 / 1_000_000).unwrap_or(i64::MAX);
    let parts = records.len().div_ceil(most);
    (0..parts).map(move |part| {
        let span = part * most..records.len().min((part + 1) * most);
        let (records, again) = (&records[span.clone()], &again[span]);
        let mut makers: Vec<Maker<'_>> =
            COLUMNS.iter().map(|column| Maker::new(column, records.len())).collect();
        for (records, again) in records.chunks(BLOCK).zip(again.chunks(BLOCK)) {
            for maker in &mut makers {
                for (record, again) in records.iter().zip(again) {
                    maker.take(&Whole { record, recorded_ms, again: *again });
                }
            }
        }
        let columns = makers.into_iter().map(Maker::finish).collect();
        Batch { rows: records.len(), columns, ..Batch::empty() }
    })
}

/// Puts rows into columns, of which only those in `wanted` are made.
pub(super) fn batch_of<'r>(rows: &[impl Row<'r>], wanted: &[usize]) -> Batch {
    let mut batch = Batch { rows: rows.len(), ..Batch::empty() };
    for position in wanted {
        let mut maker = Maker::new(&COLUMNS[*position], rows.len());
        for row in rows {
            maker.take(row);
        }
        batch.columns[*position] = maker.finish();
    }
    batch
}

/// What columns are made of.
pub(super) trait Row<'r> {
    /// The value of a field.
    fn value(&self, field: &'static Field) -> Value<'r>;

    /// When it was recorded, milliseconds since 1970.
    fn recorded_ms(&self) -> i64;

    /// Whether the flow counts at another interface.
    fn again(&self) -> bool;

    /// Beginning, end and duration of the flow, in nanoseconds.
    fn span(&self) -> [u64; 3];
}

/// A record of a tick.
struct Whole<'r> {
    record: &'r Record,
    recorded_ms: i64,
    again: bool,
}

impl<'r> Row<'r> for Whole<'r> {
    fn value(&self, field: &'static Field) -> Value<'r> {
        field.value(self.record)
    }

    fn recorded_ms(&self) -> i64 {
        self.recorded_ms
    }

    fn again(&self) -> bool {
        self.again
    }

    fn span(&self) -> [u64; 3] {
        let Record { start, end, first, last, .. } = self.record;
        let duration = u64::try_from((*last - *first).as_nanos()).unwrap_or(u64::MAX);
        [start.0, end.0, duration]
    }
}

/// Makes one column.
struct Maker<'r> {
    column: &'static Column,
    values: Values<'r>,
    /// Whether there is any value.
    is_used: bool,
}

enum Values<'r> {
    Texts {
        codes: Vec<Option<i32>>,
        known: HashMap<Value<'r>, i32, FixedState>,
        texts: Vec<String>,
        last: Option<(Value<'r>, i32)>,
    },
    Ports(Vec<Option<u16>>),
    Numbers(Vec<Option<u64>>),
    Signed(Vec<Option<i64>>),
    Truths(Vec<Option<bool>>),
}

impl<'r> Maker<'r> {
    fn new(column: &'static Column, rows: usize) -> Self {
        let values = match column.storage {
            Storage::Dictionary => Values::Texts {
                codes: Vec::with_capacity(rows),
                known: HashMap::with_hasher(FixedState::default()),
                texts: Vec::new(),
                last: None,
            },
            Storage::Port => Values::Ports(Vec::with_capacity(rows)),
            Storage::Number => Values::Numbers(Vec::with_capacity(rows)),
            Storage::Signed | Storage::Moment | Storage::Tick | Storage::Length => {
                Values::Signed(Vec::with_capacity(rows))
            }
            Storage::Truth => Values::Truths(Vec::with_capacity(rows)),
        };
        Self { column, values, is_used: false }
    }

    fn take(&mut self, row: &impl Row<'r>) {
        let integer = |field: &'static Field| match row.value(field) {
            Value::Integer(number) => number,
            _ => 0,
        };
        let difference = |left, right| integer(left).wrapping_sub(integer(right)).cast_signed();
        let value = match self.column.source {
            Source::Field(field) => row.value(field),
            Source::Before { total, interval } => return self.push_signed(difference(total, interval)),
            Source::Joined { packets, skbs } => return self.push_signed(difference(packets, skbs)),
            Source::Recorded => return self.push_signed(row.recorded_ms()),
            Source::Lag => {
                let [_, end, _] = row.span();
                let recorded = row.recorded_ms().wrapping_mul(1_000_000);
                return self.push_signed(recorded.wrapping_sub(end.cast_signed()));
            }
            Source::Skew => {
                let [start, end, duration] = row.span();
                let even = end.wrapping_sub(duration);
                return self.push_signed(start.wrapping_sub(even).cast_signed());
            }
            Source::Again => Value::Boolean(row.again()),
        };
        self.is_used |= !value.is_absent();
        match &mut self.values {
            Values::Texts { codes, known, texts, last } => {
                codes.push(code(value, known, texts, last));
            }
            Values::Ports(ports) => ports.push(match value {
                Value::Integer(number) => u16::try_from(number).ok(),
                _ => None,
            }),
            Values::Numbers(numbers) => numbers.push(match value {
                Value::Integer(number) => Some(number),
                _ => None,
            }),
            Values::Signed(numbers) => numbers.push(match value {
                Value::Timestamp(Wall(nanoseconds)) => Some(nanoseconds.cast_signed()),
                Value::Duration(length) => {
                    Some(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX).cast_signed())
                }
                _ => None,
            }),
            Values::Truths(truths) => truths.push(match value {
                Value::Boolean(truth) => Some(truth),
                _ => None,
            }),
        }
    }

    fn push_signed(&mut self, number: i64) {
        self.is_used = true;
        if let Values::Signed(numbers) = &mut self.values {
            numbers.push(Some(number));
        }
    }

    fn finish(self) -> Option<ArrayRef> {
        if !self.is_used {
            return None;
        }
        Some(match (self.values, self.column.storage) {
            (Values::Texts { codes, texts, .. }, _) => texts_array(codes, texts),
            (Values::Ports(ports), _) => Arc::new(UInt16Array::from(ports)),
            (Values::Numbers(numbers), _) => Arc::new(UInt64Array::from(numbers)),
            (Values::Signed(numbers), storage) => signed_array(numbers, storage),
            (Values::Truths(truths), _) => Arc::new(BooleanArray::from(truths)),
        })
    }
}

/// A column of texts of their numbers and the different ones.
pub(super) fn texts_array(codes: Vec<Option<i32>>, texts: Vec<String>) -> ArrayRef {
    let different = Arc::new(StringArray::from(texts));
    let array = DictionaryArray::try_new(Int32Array::from(codes), different);
    Arc::new(array.expect("codes were given out as texts were added"))
}

/// A column of numbers with sign, in the type of its storage.
pub(super) fn signed_array(numbers: Vec<Option<i64>>, storage: Storage) -> ArrayRef {
    match storage {
        Storage::Moment => Arc::new(TimestampNanosecondArray::from(numbers).with_timezone("UTC")),
        Storage::Tick => Arc::new(TimestampMillisecondArray::from(numbers).with_timezone("UTC")),
        _ => Arc::new(Int64Array::from(numbers)),
    }
}

fn code<'r>(
    value: Value<'r>,
    known: &mut HashMap<Value<'r>, i32, FixedState>,
    texts: &mut Vec<String>,
    last: &mut Option<(Value<'r>, i32)>,
) -> Option<i32> {
    if value.is_absent() {
        return None;
    }
    if let Some((last, code)) = last
        && *last == value
    {
        return Some(*code);
    }
    let next = i32::try_from(known.len()).expect("a batch has fewer than 2^31 rows");
    let code = *known.entry(value.clone()).or_insert_with(|| {
        texts.push(match &value {
            Value::Text(Cow::Borrowed(text)) => (*text).to_owned(),
            other => other.to_string(),
        });
        next
    });
    *last = Some((value, code));
    Some(code)
}
