//! The columns of the table `flow`: one for each field, and rows in the binary form of `COPY`.
//!
//! A field `a.b_c` is the column `a_b_c`. Lengths of time are seconds, moments are exact to the microsecond, and
//! identifiers above 2^63 are negative.

use std::{fmt::Write as _, net::IpAddr, sync::LazyLock, time::Duration};

use weir_flow::{
    Record, Wall,
    field::{FIELDS, Field, Kind, Value, transport_name},
};

/// One column that holds a field.
pub(super) struct Column {
    pub(super) name: String,
    pub(super) sql: &'static str,
    field: &'static Field,
}

/// Every column that holds a field.
pub(super) static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let column =
        |field: &'static Field| Column { name: column_name(field), sql: sql_type(field.kind), field };
    FIELDS.iter().map(column).collect()
});

/// The column that holds a field.
pub(crate) fn column_name(field: &Field) -> String {
    field.name.replace('.', "_")
}

/// Columns that hold no field: when the record was made, who wrote it, and whether the flow counts at another interface of
/// the same role.
const OWN: [&str; 3] = ["time", "node", "again"];

/// Seconds from 1970 to 2000, when PostgreSQL's time begins.
const EPOCH_SECONDS: i64 = 946_684_800;

/// What a `COPY` begins and ends with.
pub(super) const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
pub(super) const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

fn sql_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Address => "inet",
        Kind::Port => "integer",
        Kind::Integer | Kind::Bytes => "bigint",
        Kind::Duration => "double precision",
        Kind::Timestamp => "timestamptz",
        Kind::Boolean => "boolean",
        Kind::Protocol | Kind::Flags | Kind::Text => "text",
    }
}

/// The statement that takes rows.
pub(super) fn copy_statement(table: &str) -> String {
    let fields = COLUMNS.iter().map(|column| column.name.as_str());
    let names: Vec<&str> = OWN.into_iter().chain(fields).collect();
    format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", names.join(", "))
}

/// Rows of one node.
pub(super) struct Rows<'n> {
    node: &'n [u8],
    scratch: String,
}

impl<'n> Rows<'n> {
    pub(super) fn of_node(node: &'n str) -> Self {
        Self { node: node.as_bytes(), scratch: String::new() }
    }

    /// Appends a row.
    pub(super) fn put(&mut self, record: &Record, time: Wall, again: bool, out: &mut Vec<u8>) {
        let count = i16::try_from(OWN.len() + COLUMNS.len()).expect("there are fewer than 1,600 columns");
        out.extend(count.to_be_bytes());
        fixed(microseconds(time).to_be_bytes(), out);
        bytes(self.node, out);
        fixed([u8::from(again)], out);
        for column in COLUMNS.iter() {
            self.put_value(column, &column.field.value(record), out);
        }
    }

    fn put_value(&mut self, column: &Column, value: &Value<'_>, out: &mut Vec<u8>) {
        match value {
            Value::Absent => out.extend((-1_i32).to_be_bytes()),
            Value::Text(value) => text(value, out),
            Value::Integer(number) if column.field.kind == Kind::Port => {
                fixed(i32::try_from(*number).unwrap_or(i32::MAX).to_be_bytes(), out);
            }
            Value::Integer(number) => fixed(number.cast_signed().to_be_bytes(), out),
            Value::Address(address) => inet(*address, out),
            Value::Timestamp(wall) => fixed(microseconds(*wall).to_be_bytes(), out),
            Value::Duration(length) => fixed(seconds(*length).to_be_bytes(), out),
            Value::Boolean(truth) => fixed([u8::from(*truth)], out),
            Value::Protocol(number) => match transport_name(*number) {
                Some(name) => bytes(name.as_bytes(), out),
                None => self.shown(value, out),
            },
            Value::Flags(_) => self.shown(value, out),
        }
    }

    fn shown(&mut self, value: &Value<'_>, out: &mut Vec<u8>) {
        self.scratch.clear();
        write!(self.scratch, "{value}").expect("a string takes any text");
        bytes(self.scratch.as_bytes(), out);
    }
}

/// Microseconds since 2000.
pub(super) fn microseconds(wall: Wall) -> i64 {
    let since_1970 = i64::try_from(wall.0 / 1_000).unwrap_or(i64::MAX);
    since_1970 - EPOCH_SECONDS * 1_000_000
}

/// Seconds, as near as can be: rounded once.
#[expect(clippy::cast_precision_loss, reason = "exact up to a hundred days")]
fn seconds(length: Duration) -> f64 {
    length.as_nanos() as f64 / 1e9
}

fn fixed<const N: usize>(value: [u8; N], out: &mut Vec<u8>) {
    let length = i32::try_from(N).expect("a number has few bytes");
    out.extend(length.to_be_bytes());
    out.extend(value);
}

fn bytes(value: &[u8], out: &mut Vec<u8>) {
    let length = i32::try_from(value.len()).expect("a name has fewer than 2^31 bytes");
    out.extend(length.to_be_bytes());
    out.extend_from_slice(value);
}

/// Text without zero bytes, which a database does not take.
fn text(value: &str, out: &mut Vec<u8>) {
    if value.as_bytes().contains(&0) {
        bytes(value.replace('\0', "").as_bytes(), out);
    } else {
        bytes(value.as_bytes(), out);
    }
}

fn inet(address: IpAddr, out: &mut Vec<u8>) {
    // Family as PostgreSQL numbers it, bits of the prefix, no network, bytes of the address.
    match address {
        IpAddr::V4(address) => {
            out.extend(8_i32.to_be_bytes());
            out.extend([2, 32, 0, 4]);
            out.extend(address.octets());
        }
        IpAddr::V6(address) => {
            out.extend(20_i32.to_be_bytes());
            out.extend([3, 128, 0, 16]);
            out.extend(address.octets());
        }
    }
}
