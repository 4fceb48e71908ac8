//! The order of rows in a segment: by destination, then by source.
//!
//! Everything that a column says of a destination (address, names, port) is then the same over long runs of rows, which
//! takes next to no room: a fifth of a segment less than in the order of time. Time needs no order within a segment,
//! which is a minute or ten: its name says from when to when it is.

use std::collections::BTreeMap;

use arrow_array::{ArrayRef, UInt32Array, types::UInt16Type};
use arrow_select::take::take;

use super::{batch::Batch, schema};

/// The same rows in the order of their ends.
pub(super) fn by_ends(batch: &Batch) -> Batch {
    let ports = schema::position("destination.port").and_then(|column| batch.numbers::<UInt16Type>(column));
    let (destinations, sources) = (ranks(batch, "destination.address"), ranks(batch, "source.address"));
    let mut order: Vec<u32> = (0..batch.rows).filter_map(|row| u32::try_from(row).ok()).collect();
    // A stable sort keeps the order of time where the ends are the same.
    order.sort_by_key(|row| {
        let row = *row as usize;
        (destinations[row], ports.map_or(0, |ports| ports.value(row)), sources[row])
    });
    let order = UInt32Array::from(order);
    let taken = |column: &ArrayRef| take(column, &order, None).expect("the numbers are those of its rows");
    Batch {
        rows: batch.rows,
        columns: batch.columns.iter().map(|column| column.as_ref().map(taken)).collect(),
    }
}

/// For each row the place of its text among all, in alphabetical order; zero without one.
fn ranks(batch: &Batch, name: &str) -> Vec<usize> {
    let Some(texts) = schema::position(name).and_then(|column| batch.texts(column)) else {
        return vec![0; batch.rows];
    };
    let mut places: BTreeMap<&str, usize> = texts.different.iter().flatten().map(|text| (text, 0)).collect();
    for (place, (_, rank)) in places.iter_mut().enumerate() {
        *rank = place + 1;
    }
    let of_codes: Vec<usize> =
        texts.different.iter().map(|text| text.map_or(0, |text| places[text])).collect();
    (0..batch.rows).map(|row| texts.code(row).map_or(0, |code| of_codes[code])).collect()
}
