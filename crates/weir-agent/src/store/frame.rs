//! A batch as bytes, for the append log.
//!
//! Rows, then for each column of the log's header: one byte for what follows (nothing, texts, numbers), and the
//! values as numbers of variable length (seven bits a byte, lowest first). Zero means no value, others are one more
//! than they stand for, so that a missing value costs a byte and a missing column too.

use std::sync::Arc;

use arrow_array::{
    Array as _, ArrayRef, BooleanArray, PrimitiveArray, UInt16Array, UInt64Array,
    types::{
        ArrowPrimitiveType, Int64Type, TimestampMillisecondType, TimestampNanosecondType, UInt16Type,
        UInt64Type,
    },
};

use super::{
    batch::Batch,
    encode::{signed_array, texts_array},
    schema::{COLUMNS, Storage},
};

const NOTHING: u8 = 0;
const TEXTS: u8 = 1;
const NUMBERS: u8 = 2;

/// Appends the batch, its columns in the order of the schema.
pub(super) fn encode(batch: &Batch, out: &mut Vec<u8>) {
    number(batch.rows as u64, out);
    for (position, column) in COLUMNS.iter().enumerate() {
        if batch.columns[position].is_none() {
            out.push(NOTHING);
        } else if column.storage == Storage::Dictionary {
            out.push(TEXTS);
            encode_texts(batch, position, out);
        } else {
            out.push(NUMBERS);
            encode_numbers(batch, position, column.storage, out).expect("a column is of its storage");
        }
    }
}

/// Reads a batch. `columns` says for each column of the log which column of the schema it is; those that the schema
/// no longer has are skipped. `None` where the bytes make no sense.
pub(super) fn decode(mut bytes: &[u8], columns: &[Option<(usize, Storage)>]) -> Option<Batch> {
    let rows = usize::try_from(read_number(&mut bytes)?).ok()?;
    let mut batch = Batch { rows, ..Batch::empty() };
    for column in columns {
        let (kind, rest) = bytes.split_first()?;
        bytes = rest;
        let storage = column.map_or(Storage::Number, |(_, storage)| storage);
        let array = match *kind {
            NOTHING => continue,
            TEXTS => decode_texts(&mut bytes, rows)?,
            NUMBERS => decode_numbers(&mut bytes, rows, storage)?,
            _ => return None,
        };
        if let Some((position, storage)) = column
            && (*storage == Storage::Dictionary) == (*kind == TEXTS)
        {
            batch.columns[*position] = Some(array);
        }
    }
    bytes.is_empty().then_some(batch)
}

fn encode_texts(batch: &Batch, position: usize, out: &mut Vec<u8>) {
    let texts = batch.texts(position).expect("a column of texts is one");
    number(texts.different.len() as u64, out);
    for text in texts.different {
        let text = text.unwrap_or_default();
        number(text.len() as u64, out);
        out.extend_from_slice(text.as_bytes());
    }
    for row in 0..batch.rows {
        optional(texts.code(row).map(|code| code as u64), out);
    }
}

fn decode_texts(bytes: &mut &[u8], rows: usize) -> Option<ArrayRef> {
    let different = usize::try_from(read_number(bytes)?).ok()?;
    let mut texts = Vec::new();
    for _ in 0..different {
        let length = usize::try_from(read_number(bytes)?).ok()?;
        let (text, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        texts.push(String::from_utf8(text.to_vec()).ok()?);
    }
    let mut codes = Vec::new();
    for _ in 0..rows {
        codes.push(match read_number(bytes)? {
            0 => None,
            code if code <= different as u128 => Some(i32::try_from(code - 1).ok()?),
            _ => return None,
        });
    }
    Some(texts_array(codes, texts))
}

fn decode_numbers(bytes: &mut &[u8], rows: usize, storage: Storage) -> Option<ArrayRef> {
    let mut numbers: Vec<Option<u64>> = Vec::new();
    for _ in 0..rows {
        let number = read_number(bytes)?;
        numbers.push(match number {
            0 => None,
            number => Some(u64::try_from(number - 1).ok()?),
        });
    }
    Some(match storage {
        Storage::Port => {
            let narrow = |number: u64| u16::try_from(number).unwrap_or_default();
            let ports = numbers.into_iter().map(|number| number.map(narrow));
            Arc::new(ports.collect::<UInt16Array>())
        }
        Storage::Number | Storage::Dictionary => Arc::new(UInt64Array::from(numbers)),
        Storage::Truth => {
            let truths = numbers.into_iter().map(|number| number.map(|number| number != 0));
            Arc::new(truths.collect::<BooleanArray>())
        }
        Storage::Signed | Storage::Moment | Storage::Tick | Storage::Length => {
            let unfold = |number: u64| (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
            signed_array(numbers.into_iter().map(|number| number.map(unfold)).collect(), storage)
        }
    })
}

/// Appends a column of numbers. Of those with sign, the sign is the lowest bit, so that small negative ones stay small.
fn encode_numbers(batch: &Batch, position: usize, storage: Storage, out: &mut Vec<u8>) -> Option<()> {
    let fold = |number: i64| ((number << 1) ^ (number >> 63)).cast_unsigned();
    match storage {
        Storage::Port => all(batch.numbers::<UInt16Type>(position)?, u64::from, out),
        Storage::Number => all(batch.numbers::<UInt64Type>(position)?, |number| number, out),
        Storage::Moment => all(batch.numbers::<TimestampNanosecondType>(position)?, fold, out),
        Storage::Tick => all(batch.numbers::<TimestampMillisecondType>(position)?, fold, out),
        Storage::Signed | Storage::Length => all(batch.numbers::<Int64Type>(position)?, fold, out),
        Storage::Truth => {
            let truths = batch.truths(position)?;
            truths.iter().for_each(|truth| optional(truth.map(u64::from), out));
        }
        Storage::Dictionary => return None,
    }
    Some(())
}

fn all<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, bits: impl Fn(T::Native) -> u64, out: &mut Vec<u8>) {
    array.iter().for_each(|number| optional(number.map(&bits), out));
}

/// Appends one more than a number, or zero.
fn optional(value: Option<u64>, out: &mut Vec<u8>) {
    match value.map(|value| value.checked_add(1)) {
        None => out.push(0),
        Some(Some(more)) => number(more, out),
        // 2^64 in ten times seven bits.
        Some(None) => out.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02]),
    }
}

/// Appends a number, seven bits a byte.
fn number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        let [low, ..] = number.to_le_bytes();
        out.push(low | 0x80);
        number >>= 7;
    }
    let [low, ..] = number.to_le_bytes();
    out.push(low);
}

fn read_number(bytes: &mut &[u8]) -> Option<u128> {
    let mut number = 0_u128;
    let mut shift = 0;
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if shift > 63 {
            return None;
        }
        number |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use weir_flow::{Tick, field::FIELDS};

    use super::*;
    use crate::store::{conformance::Sample, encode::batches};

    #[test]
    fn a_batch_reads_back_with_every_value() {
        let columns: Vec<_> =
            COLUMNS.iter().enumerate().map(|(position, column)| Some((position, column.storage))).collect();
        for (tick, mut records) in Sample::default().ticks(20) {
            if let Some(record) = records.first_mut() {
                record.source.owner.cookie = u64::MAX;
                record.delta.forward.packets = u64::MAX;
                record.delta.forward.skbs = 0;
            }
            for batch in batches(&records, &tick, 5) {
                let mut bytes = Vec::new();
                encode(&batch, &mut bytes);
                let read = decode(&bytes, &columns).expect("it reads back");
                assert_eq!(read.rows, batch.rows);
                for row in 0..batch.rows {
                    for field in FIELDS {
                        assert_eq!(read.value(field, row), batch.value(field, row), "{}", field.name);
                    }
                }
                // Cut anywhere it makes no sense, and nothing worse.
                for length in (0..bytes.len()).step_by(7) {
                    assert!(decode(&bytes[..length], &columns).is_none());
                }
            }
        }
        assert!(batches(&[], &Tick::default(), 5).next().is_none());
    }
}
