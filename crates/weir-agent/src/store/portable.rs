//! Records as bytes that a later version reads too: the form of the append log, for others who keep records on a disk.
//!
//! The names of the columns are written once, beside any number of record sets. What a version does not know is passed
//! over, what it misses is absent. Framing and checksums are the business of who writes.

use weir_flow::{Record, Tick};

use super::{
    batch::Batch,
    encode, frame,
    schema::{COLUMNS, Storage, position},
};

/// Which columns follow, in their order.
#[derive(Debug)]
pub(crate) struct Columns(Vec<Option<(usize, Storage)>>);

impl Columns {
    /// The names of those that [`encode_records`] writes, one per line.
    pub(crate) fn names() -> String {
        let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        names.join("\n")
    }

    /// Those with these names.
    pub(crate) fn of_names(names: &str) -> Self {
        let known = |name| position(name).map(|position| (position, COLUMNS[position].storage));
        Self(names.split('\n').map(known).collect())
    }
}

/// Appends records.
pub(crate) fn encode_records(records: &[Record], tick: &Tick, out: &mut Vec<u8>) {
    let whole = encode::batches(records, tick, usize::MAX).next();
    frame::encode(&whole.unwrap_or_else(Batch::empty), out);
}

/// Reads records. Every field has the value that was written; what no field shows is lost. `None` where the bytes make
/// no sense.
pub(crate) fn decode_records(bytes: &[u8], columns: &Columns) -> Option<Box<[Record]>> {
    let batch = frame::decode(bytes, &columns.0)?;
    Some((0..batch.rows).map(|row| batch.record(row)).collect())
}
