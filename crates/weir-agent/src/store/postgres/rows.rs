//! Rows of the table `flow`, as columns of a store.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use tokio_postgres::Row as Line;
use weir_flow::{
    Wall,
    field::{Field, Kind, Value},
};

use crate::{
    sinks::postgres::column_name,
    store::{
        encode,
        schema::{self, COLUMNS, Source},
    },
};

/// Which columns are asked for, and where they stand in a row.
pub(super) struct Wanted {
    /// Positions in the schema of stores.
    pub(super) columns: Vec<usize>,
    fields: Vec<&'static Field>,
    places: HashMap<&'static str, usize>,
}

/// What was read of a row.
pub(super) struct Found {
    recorded_ms: i64,
    again: bool,
    values: Vec<Value<'static>>,
}

/// A row with the names of its values.
pub(super) struct Named<'r> {
    pub(super) found: &'r Found,
    pub(super) wanted: &'r Wanted,
}

/// Columns before those of fields: when the row was recorded, and whether it counts elsewhere.
const OWN: usize = 2;

impl Wanted {
    /// For these columns of a store; of a table that lacks some, the others.
    pub(super) fn of(columns: Vec<usize>, has: &dyn Fn(&str) -> bool) -> Self {
        let mut fields: Vec<&'static Field> = Vec::new();
        let mut add = |more: &[&'static Field]| {
            for field in more {
                if !fields.contains(field) && has(&column_name(field)) {
                    fields.push(field);
                }
            }
        };
        let named = |name| Field::by_name(name).expect("the table of fields has it");
        for column in &columns {
            match COLUMNS[*column].source {
                Source::Field(field) => add(&[field]),
                Source::Before { total, interval } => add(&[total, interval]),
                Source::Joined { packets, skbs } => add(&[packets, skbs]),
                Source::Lag => add(&[named("flow.end")]),
                Source::Skew => add(&["flow.start", "flow.end", "flow.duration"].map(named)),
                Source::Recorded | Source::Again => {}
            }
        }
        let places = fields.iter().enumerate().map(|(place, field)| (field.name, place)).collect();
        Self { columns, fields, places }
    }

    /// Every column.
    pub(super) fn all(has: &dyn Fn(&str) -> bool) -> Self {
        Self::of((0..COLUMNS.len()).collect(), has)
    }

    /// Those that it takes to know what `fields` are, and some more.
    pub(super) fn with(
        mut columns: Vec<usize>,
        fields: &[&'static Field],
        has: &dyn Fn(&str) -> bool,
    ) -> Self {
        for field in fields {
            schema::require(field, &mut columns);
        }
        columns.extend([schema::RECORDED, schema::AGAIN].into_iter().filter_map(schema::position));
        columns.sort_unstable();
        columns.dedup();
        Self::of(columns, has)
    }

    /// What stands behind `SELECT`.
    pub(super) fn sql(&self) -> String {
        let names = ["time".to_owned(), "again".to_owned()].into_iter();
        names.chain(self.fields.iter().map(|field| column_name(field))).collect::<Vec<_>>().join(", ")
    }

    /// Columns of a row in all.
    pub(super) fn width(&self) -> usize {
        OWN + self.fields.len()
    }

    /// Reads a row, which begins with these columns.
    pub(super) fn read(&self, line: &Line) -> Result<Found, tokio_postgres::Error> {
        let mut values = Vec::with_capacity(self.fields.len());
        for (place, field) in self.fields.iter().enumerate() {
            values.push(value(line, OWN + place, field.kind)?);
        }
        let Value::Timestamp(Wall(recorded)) = value(line, 0, Kind::Timestamp)? else {
            return Ok(Found { recorded_ms: 0, again: false, values });
        };
        let recorded_ms = i64::try_from(recorded / 1_000_000).unwrap_or(i64::MAX);
        Ok(Found { recorded_ms, again: line.try_get(1)?, values })
    }
}

/// The value in a column that holds a field of a kind.
fn value(line: &Line, place: usize, kind: Kind) -> Result<Value<'static>, tokio_postgres::Error> {
    let read = |text: &str| Value::read(kind, text);
    let value = match kind {
        Kind::Address => line.try_get::<_, Option<std::net::IpAddr>>(place)?.map(Value::Address),
        Kind::Port => {
            line.try_get::<_, Option<i32>>(place)?.map(|port| Value::Integer(u64::from(port.cast_unsigned())))
        }
        Kind::Integer | Kind::Bytes => {
            line.try_get::<_, Option<i64>>(place)?.map(|number| Value::Integer(number.cast_unsigned()))
        }
        Kind::Duration => line
            .try_get::<_, Option<f64>>(place)?
            .map(|seconds| Value::Duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())),
        Kind::Timestamp => line.try_get::<_, Option<std::time::SystemTime>>(place)?.map(|moment| {
            let since = moment.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            Value::Timestamp(Wall(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
        }),
        Kind::Boolean => line.try_get::<_, Option<bool>>(place)?.map(Value::Boolean),
        Kind::Protocol | Kind::Flags => line.try_get::<_, Option<&str>>(place)?.and_then(read),
        Kind::Text => line.try_get::<_, Option<String>>(place)?.map(|text| Value::Text(Cow::Owned(text))),
    };
    Ok(value.unwrap_or(Value::Absent))
}

impl Named<'_> {
    fn nanoseconds(&self, name: &str) -> u64 {
        match self.wanted.places.get(name).map(|place| &self.found.values[*place]) {
            Some(Value::Timestamp(wall)) => wall.0,
            Some(Value::Duration(length)) => u64::try_from(length.as_nanos()).unwrap_or(u64::MAX),
            _ => 0,
        }
    }
}

impl<'r> encode::Row<'r> for Named<'r> {
    fn value(&self, field: &'static Field) -> Value<'r> {
        let Some(place) = self.wanted.places.get(field.name) else { return Value::Absent };
        match &self.found.values[*place] {
            Value::Text(text) => Value::Text(Cow::Borrowed(text)),
            Value::Absent => Value::Absent,
            Value::Address(address) => Value::Address(*address),
            Value::Protocol(number) => Value::Protocol(*number),
            Value::Integer(number) => Value::Integer(*number),
            Value::Duration(length) => Value::Duration(*length),
            Value::Timestamp(wall) => Value::Timestamp(*wall),
            Value::Flags(flags) => Value::Flags(*flags),
            Value::Boolean(truth) => Value::Boolean(*truth),
        }
    }

    fn recorded_ms(&self) -> i64 {
        self.found.recorded_ms
    }

    fn again(&self) -> bool {
        self.found.again
    }

    fn span(&self) -> [u64; 3] {
        ["flow.start", "flow.end", "flow.duration"].map(|name| self.nanoseconds(name))
    }
}
