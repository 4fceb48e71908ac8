//! What rows may have in common: fields, an end of the service map, an interval of time.

use arrow_array::{
    Array as _,
    types::{TimestampMillisecondType, UInt16Type},
};
use weir_flow::{
    Wall,
    field::{Field, Value},
};

use super::{
    super::{
        batch::{Batch, owned, read},
        entity::Entity,
        schema::{self, AGAIN, Access, COLUMNS, RECORDED, Storage, access},
    },
    Names,
};

/// One of the things that rows of a group have in common.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Part {
    /// The value of a field.
    Field(&'static Field),
    /// Who is at an end.
    End(Side),
    /// When the flow began. Nearly every flow has another time, so these get no numbers.
    Start,
    /// Whether the flow counts elsewhere.
    Again,
    /// The number of an interval of time.
    Interval { since_ms: i64, step_ms: i64 },
}

/// A column that need not be read where two others have a value in every row.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Spare {
    pub(in super::super) column: usize,
    pub(in super::super) unless: [usize; 2],
}

/// An end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Side {
    Source,
    Destination,
}

/// Second word of an end that is no workload.
const NO_WORKLOAD: u32 = u32::MAX;
/// Third word of such an end.
const PROCESS: u32 = 0;
const ADDRESS: u32 = 1;
const OTHERS: u32 = 2;

impl Side {
    fn columns(self) -> [Option<usize>; 5] {
        let end = match self {
            Self::Source => "source",
            Self::Destination => "destination",
        };
        ["k8s.owner.name", "k8s.owner.kind", "k8s.namespace.name", "process.executable.name", "address"]
            .map(|attribute| schema::position(&format!("{end}.{attribute}")))
    }
}

impl Part {
    /// Words that it takes in a key.
    pub(super) const fn width(&self) -> usize {
        match self {
            Self::End(_) => 3,
            Self::Start => 2,
            Self::Field(_) | Self::Again | Self::Interval { .. } => 1,
        }
    }

    /// Adds the columns that it needs.
    pub(super) fn require(&self, columns: &mut Vec<usize>) {
        match self {
            Self::Field(field) => schema::require(field, columns),
            Self::End(side) => columns.extend(side.columns().into_iter().flatten()),
            Self::Start => schema::require(start_field(), columns),
            Self::Again => columns.extend(schema::position(AGAIN)),
            Self::Interval { .. } => columns.extend(schema::position(RECORDED)),
        }
    }

    /// Of the columns that it needs, those that it needs only where one of two others is empty.
    pub(super) fn spare(&self) -> Vec<Spare> {
        let Self::End(side) = self else { return Vec::new() };
        let [name, kind, _, process, address] = side.columns();
        let (Some(name), Some(kind)) = (name, kind) else { return Vec::new() };
        let spare = [process, address].into_iter().flatten();
        spare.map(|column| Spare { column, unless: [name, kind] }).collect()
    }

    /// Adds its words for each row.
    pub(super) fn words(&self, batch: &Batch, names: &mut Names, words: &mut Vec<Vec<u32>>) {
        match self {
            Self::Field(field) => words.push(field_words(field, batch, names)),
            Self::End(side) => words.extend(end_words(*side, batch, names)),
            Self::Start => {
                let start = start_field();
                let starts = (0..batch.rows).map(|row| match batch.value(start, row) {
                    Value::Timestamp(Wall(nanoseconds)) => nanoseconds,
                    _ => 0,
                });
                let (upper, lower) = starts.map(halves).unzip();
                words.extend([upper, lower]);
            }
            Self::Again => {
                let again = schema::position(AGAIN).and_then(|position| batch.truths(position));
                words.push(match again {
                    Some(again) => again.values().iter().map(u32::from).collect(),
                    None => vec![0; batch.rows],
                });
            }
            Self::Interval { since_ms, step_ms } => {
                let recorded = schema::position(RECORDED)
                    .and_then(|position| batch.numbers::<TimestampMillisecondType>(position));
                let number = |time: i64| u32::try_from((time - since_ms).div_euclid(*step_ms)).unwrap_or(0);
                words.push(match recorded {
                    Some(recorded) => recorded.values().iter().map(|time| number(*time)).collect(),
                    None => vec![0; batch.rows],
                });
            }
        }
    }

    /// The value that a word stands for, where this is a field.
    pub(super) fn value(&self, words: &[u32], names: &Names) -> Option<Value<'static>> {
        let Self::Field(field) = self else { return None };
        let word = words[0];
        Some(match storage_of(field) {
            Some(Storage::Dictionary) => {
                names.text(word).map_or(Value::Absent, |text| owned(&read(field.kind, text)))
            }
            Some(Storage::Port) => {
                word.checked_sub(1).map_or(Value::Absent, |port| Value::Integer(port.into()))
            }
            _ => names.value(word).cloned().unwrap_or(Value::Absent),
        })
    }

    /// Who words stand for, where this is an end.
    pub(in super::super) fn entity(&self, words: &[u32], names: &Names) -> Option<Entity> {
        let (Self::End(_), [name, kind, namespace]) = (self, words) else { return None };
        let text = |number: &u32| names.text(*number).map(Into::into);
        Some(match (*kind, *namespace) {
            (NO_WORKLOAD, PROCESS) => Entity::Process(text(name)?),
            (NO_WORKLOAD, ADDRESS) => Entity::Address(text(name)?),
            (NO_WORKLOAD, _) => Entity::Others,
            _ => Entity::Workload { kind: text(kind)?, namespace: text(namespace), name: text(name)? },
        })
    }
}

fn start_field() -> &'static Field {
    Field::by_name("flow.start").expect("the table of fields has it")
}

/// The upper and the lower half of a number.
fn halves(number: u64) -> (u32, u32) {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
    (half(number >> 32), half(number))
}

fn storage_of(field: &Field) -> Option<Storage> {
    match access(field) {
        Access::Column(column) => Some(COLUMNS[column].storage),
        _ => None,
    }
}

fn field_words(field: &'static Field, batch: &Batch, names: &mut Names) -> Vec<u32> {
    match access(field) {
        Access::Column(column) if batch.columns[column].is_none() => vec![0; batch.rows],
        Access::Column(column) if COLUMNS[column].storage == Storage::Dictionary => {
            names.of_rows(batch.texts(column), batch.rows)
        }
        Access::Column(column) if COLUMNS[column].storage == Storage::Port => {
            let Some(ports) = batch.numbers::<UInt16Type>(column) else { return vec![0; batch.rows] };
            let word = |row| if ports.is_null(row) { 0 } else { u32::from(ports.value(row)) + 1 };
            (0..batch.rows).map(word).collect()
        }
        _ => (0..batch.rows).map(|row| names.number_of_value(owned(&batch.value(field, row)))).collect(),
    }
}

fn end_words(side: Side, batch: &Batch, names: &mut Names) -> [Vec<u32>; 3] {
    let [name, kind, namespace, process, address] = side.columns();
    let mut of =
        |column: Option<usize>| names.of_rows(column.and_then(|column| batch.texts(column)), batch.rows);
    let mut words = [name, kind, namespace].map(&mut of);
    let is_workload = |words: &[Vec<u32>; 3], row: usize| words[0][row] != 0 && words[1][row] != 0;
    if (0..batch.rows).all(|row| is_workload(&words, row)) {
        return words;
    }
    let [process, address] = [process, address].map(&mut of);
    for row in 0..batch.rows {
        if is_workload(&words, row) {
            continue;
        }
        let (text, sort) = match (process[row], address[row]) {
            (0, 0) => (0, OTHERS),
            (0, address) => (address, ADDRESS),
            (process, _) => (process, PROCESS),
        };
        words[0][row] = text;
        words[1][row] = NO_WORKLOAD;
        words[2][row] = sort;
    }
    words
}
