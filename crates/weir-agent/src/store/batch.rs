//! [`Batch`]: rows in columns, wherever they come from.
//!
//! A batch has a place for every column of the schema. A place is empty where no row has a value, where the file is
//! older than the column, or where the column was not read.

use std::{borrow::Cow, sync::Arc, time::Duration};

use arrow_array::{
    Array, ArrayRef, BooleanArray, StringArray,
    cast::AsArray,
    new_null_array,
    types::{
        ArrowPrimitiveType, Int32Type, Int64Type, TimestampMillisecondType, TimestampNanosecondType,
        UInt16Type, UInt64Type,
    },
};
use arrow_select::concat::concat;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weir_flow::{
    Record, Wall,
    field::{Field, Kind, Value},
    filter::Filter,
    record_of,
};

use super::{
    encode::texts_array,
    schema::{Access, COLUMNS, RECORDED, Storage, access, position},
};

/// Rows in columns.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) rows: usize,
    /// As many as the schema has.
    pub(super) columns: Vec<Option<ArrayRef>>,
    /// The numbers of the rows in their source.
    pub(super) numbers: Numbers,
}

/// Which rows of a source these are.
#[derive(Clone, Debug)]
pub(super) enum Numbers {
    /// One after another, from this one on.
    From(u32),
    /// These.
    Listed(Vec<u32>),
}

/// A column of texts: the different ones, and for each row which.
#[derive(Clone, Copy)]
pub(super) struct Texts<'b> {
    pub(super) different: &'b StringArray,
    keys: &'b arrow_array::PrimitiveArray<Int32Type>,
}

impl<'b> Texts<'b> {
    /// Which text a row has.
    pub(super) fn code(&self, row: usize) -> Option<usize> {
        if self.keys.is_null(row) { None } else { usize::try_from(self.keys.value(row)).ok() }
    }

    /// For each row what its text stands for, `none` where there is no text.
    pub(super) fn map<T: Copy>(&self, meanings: &[T], none: T) -> Vec<T> {
        let meaning = |key: &i32| usize::try_from(*key).map_or(none, |code| meanings[code]);
        let keys = self.keys.values();
        match self.keys.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => keys.iter().map(meaning).collect(),
            Some(valid) => {
                let of = |(key, is_valid)| if is_valid { meaning(key) } else { none };
                keys.iter().zip(valid.iter()).map(of).collect()
            }
        }
    }

    /// The text of a row.
    fn get(&self, row: usize) -> Option<&'b str> {
        self.code(row).map(|code| self.different.value(code))
    }
}

impl Batch {
    /// A batch without rows.
    pub(super) fn empty() -> Self {
        Self { rows: 0, columns: vec![None; COLUMNS.len()], numbers: Numbers::From(0) }
    }

    /// Several batches in one, in their order.
    pub(super) fn joined(batches: &[Arc<Self>]) -> Self {
        let rows = batches.iter().map(|batch| batch.rows).sum();
        let columns = (0..COLUMNS.len()).map(|column| Self::joined_column(batches, column)).collect();
        Self { rows, columns, numbers: Numbers::From(0) }
    }

    /// One column of several batches.
    pub(super) fn joined_column(batches: &[Arc<Self>], position: usize) -> Option<ArrayRef> {
        if batches.iter().all(|batch| batch.columns[position].is_none()) {
            return None;
        }
        if COLUMNS[position].storage == Storage::Dictionary {
            return Some(joined_texts(batches, position));
        }
        let data_type = COLUMNS[position].storage.data_type();
        let array = |batch: &Arc<Self>| {
            batch.columns[position].clone().unwrap_or_else(|| new_null_array(&data_type, batch.rows))
        };
        let arrays: Vec<ArrayRef> = batches.iter().map(array).collect();
        let arrays: Vec<&dyn Array> = arrays.iter().map(|array| &**array).collect();
        Some(concat(&arrays).expect("a column has one type"))
    }

    /// A column of texts.
    pub(super) fn texts(&self, column: usize) -> Option<Texts<'_>> {
        let array = self.columns[column].as_ref()?.as_dictionary_opt::<Int32Type>()?;
        Some(Texts { different: array.values().as_string_opt::<i32>()?, keys: array.keys() })
    }

    /// A column of numbers.
    pub(super) fn numbers<T: ArrowPrimitiveType>(
        &self,
        column: usize,
    ) -> Option<&arrow_array::PrimitiveArray<T>> {
        self.columns[column].as_ref()?.as_primitive_opt::<T>()
    }

    /// A column of truths.
    pub(super) fn truths(&self, column: usize) -> Option<&BooleanArray> {
        self.columns[column].as_ref()?.as_boolean_opt()
    }

    fn number<T: ArrowPrimitiveType>(&self, column: usize, row: usize) -> Option<T::Native> {
        self.numbers::<T>(column).filter(|array| array.is_valid(row)).map(|array| array.value(row))
    }

    /// The number of a row in its source.
    pub(super) fn number_of(&self, row: usize) -> u32 {
        match &self.numbers {
            Numbers::From(first) => first.saturating_add(u32::try_from(row).unwrap_or(u32::MAX)),
            Numbers::Listed(numbers) => numbers[row],
        }
    }

    /// Milliseconds since 1970 at which each row was recorded.
    pub(super) fn times_ms(&self) -> &[i64] {
        let recorded = position(RECORDED).and_then(|column| self.numbers::<TimestampMillisecondType>(column));
        recorded.map_or(&[], |times| times.values())
    }

    /// The same of the first row; zero where there is none.
    pub(super) fn first_ms(&self) -> i64 {
        self.times_ms().first().copied().unwrap_or_default()
    }

    /// The value of a field in a row.
    pub(super) fn value(&self, field: &Field, row: usize) -> Value<'_> {
        let unsigned = |column| self.number::<UInt64Type>(column, row).unwrap_or_default();
        let signed = |column| self.number::<Int64Type>(column, row).unwrap_or_default();
        match access(field) {
            Access::Column(column) => self.stored(column, field.kind, row),
            Access::Sum(before, interval) => {
                Value::Integer(unsigned(interval).wrapping_add_signed(signed(before)))
            }
            Access::Difference(packets, joined) => {
                Value::Integer(unsigned(packets).wrapping_sub(signed(joined).cast_unsigned()))
            }
            Access::End { recorded, lag } => Value::Timestamp(Wall(
                self.recorded_ns(recorded, row).wrapping_sub(signed(lag)).cast_unsigned(),
            )),
            Access::Start { recorded, lag, duration, skew } => {
                let end = self.recorded_ns(recorded, row).wrapping_sub(signed(lag));
                let start = end.wrapping_sub(signed(duration)).wrapping_add(signed(skew));
                Value::Timestamp(Wall(start.cast_unsigned()))
            }
            Access::Rebuilt => owned(&field.value(&self.record(row))),
        }
    }

    fn recorded_ns(&self, column: usize, row: usize) -> i64 {
        let recorded_ms = self.number::<TimestampMillisecondType>(column, row).unwrap_or_default();
        recorded_ms.wrapping_mul(1_000_000)
    }

    fn stored(&self, column: usize, kind: Kind, row: usize) -> Value<'_> {
        let value = match COLUMNS[column].storage {
            Storage::Dictionary => {
                self.texts(column).and_then(|texts| texts.get(row)).map(|text| read(kind, text))
            }
            Storage::Port => {
                self.number::<UInt16Type>(column, row).map(|number| Value::Integer(number.into()))
            }
            Storage::Number => self.number::<UInt64Type>(column, row).map(Value::Integer),
            Storage::Truth => self
                .truths(column)
                .filter(|array| array.is_valid(row))
                .map(|array| Value::Boolean(array.value(row))),
            Storage::Moment => self
                .number::<TimestampNanosecondType>(column, row)
                .map(|moment| Value::Timestamp(Wall(moment.cast_unsigned()))),
            Storage::Signed | Storage::Tick => None,
            Storage::Length => self
                .number::<Int64Type>(column, row)
                .map(|length| Value::Duration(Duration::from_nanos(length.cast_unsigned()))),
        };
        value.unwrap_or(Value::Absent)
    }

    /// The record of a row. All columns must be there.
    pub(super) fn record(&self, row: usize) -> Record {
        record_of(&|name| {
            let field = Field::by_name(name);
            field.map_or(Value::Absent, |field| self.value(field, row))
        })
    }

    /// Which rows match a filter.
    pub(super) fn select(&self, filter: &Filter) -> Vec<bool> {
        filter.select(self.rows, &mut |field, test| {
            if let Access::Column(column) = access(field)
                && COLUMNS[column].storage == Storage::Dictionary
            {
                let Some(texts) = self.texts(column) else { return vec![false; self.rows] };
                let passes: Vec<bool> = texts
                    .different
                    .iter()
                    .map(|text| text.is_some_and(|text| test.accepts(&read(field.kind, text))))
                    .collect();
                return texts.map(&passes, false);
            }
            (0..self.rows).map(|row| test.accepts(&self.value(field, row))).collect()
        })
    }
}

/// The value that a text of a column stands for.
pub(super) fn read(kind: Kind, text: &str) -> Value<'_> {
    if kind == Kind::Text {
        return Value::Text(Cow::Borrowed(text));
    }
    Value::read(kind, text).unwrap_or(Value::Absent)
}

/// The same value without a loan.
pub(super) fn owned(value: &Value<'_>) -> Value<'static> {
    match value {
        Value::Text(text) => Value::Text(Cow::Owned(text.clone().into_owned())),
        Value::Absent => Value::Absent,
        Value::Address(address) => Value::Address(*address),
        Value::Protocol(number) => Value::Protocol(*number),
        Value::Integer(number) => Value::Integer(*number),
        Value::Duration(duration) => Value::Duration(*duration),
        Value::Timestamp(wall) => Value::Timestamp(*wall),
        Value::Flags(flags) => Value::Flags(*flags),
        Value::Boolean(truth) => Value::Boolean(*truth),
    }
}

/// One column of texts of several: each different text is there once.
fn joined_texts(batches: &[Arc<Batch>], position: usize) -> ArrayRef {
    let mut known: HashMap<&str, i32, FixedState> = HashMap::default();
    let mut texts = Vec::new();
    let mut codes = Vec::with_capacity(batches.iter().map(|batch| batch.rows).sum());
    for batch in batches {
        let Some(column) = batch.texts(position) else {
            codes.extend(std::iter::repeat_n(None, batch.rows));
            continue;
        };
        let mut numbers = Vec::with_capacity(column.different.len());
        for text in column.different {
            let text = text.unwrap_or_default();
            let next = i32::try_from(texts.len()).expect("fewer than 2^31 rows");
            let code = *known.entry(text).or_insert(next);
            if code == next {
                texts.push(text.to_owned());
            }
            numbers.push(Some(code));
        }
        codes.extend(column.map(&numbers, None));
    }
    texts_array(codes, texts)
}
