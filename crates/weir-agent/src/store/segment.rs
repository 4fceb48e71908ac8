//! Segments: immutable Parquet files of raw flows.
//!
//! Zstandard level 1, texts as dictionaries, rows in the order of their ends ([`order`]), one row group with least and
//! greatest values. Only the columns that a query asks for are read, those that its filter needs first; of the others
//! only what passed the filter, where that is little. A dictionary is the same for all batches of a group.

use std::{fs::File, io, ops::ControlFlow, path::Path, sync::Arc};

use arrow_array::{RecordBatch, new_null_array};
use arrow_select::take::take;
use parquet::{
    arrow::{
        ArrowWriter, ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
        },
        arrow_writer::compute_leaves,
    },
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, PageIndexPolicy, RowGroupMetaData},
        properties::{EnabledStatistics, WriterProperties, WriterVersion},
        statistics::Statistics,
    },
    schema::types::ColumnPath,
};

use super::{
    StoreError,
    batch::{Batch, Numbers},
    directory::{Directory, SegmentName},
    order,
    schema::{self, COLUMNS, RECORDED},
};

/// Where fewer than one row in so many passes a filter, the other columns are read of these rows only.
const SPARSE: usize = 8;

/// Rows that are read at a time, so that their columns stay in the cache and their memory is used again.
const BATCH: usize = 8_192;

/// Rows that a segment has by default, and most rows of a batch.
pub(super) const ROWS: usize = 65_536;

/// What a segment says of its format. It goes up when columns change their meaning or new ones take the place of others;
/// a new field is just a column that older segments lack.
const FORMAT: &str = "3";

/// Where a segment says it.
const FORMAT_NAME: &str = "weir.format";

/// Why a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// It is gone: retention removed it.
    #[error("it was removed")]
    Gone,
    /// The file or its place is broken.
    #[error("cannot read it")]
    Io(#[from] io::Error),
    /// The contents are broken.
    #[error("its contents are damaged")]
    Damaged(#[from] ParquetError),
    /// It was written by another version.
    #[error("it has format {found}, this version of weir reads format {FORMAT}")]
    Format {
        /// What it says of itself.
        found: String,
    },
}

/// Writes the batches as a segment; it is there whole or not at all. One column after another, so that no second copy of
/// all of them is in memory.
pub(super) fn write(
    directory: &Directory,
    name: &SegmentName,
    batches: &[Arc<Batch>],
) -> Result<(), StoreError> {
    let path = directory.segment(name);
    directory.write_whole(&path, |file| {
        let written = write_columns(file, batches);
        written.map_err(|error| StoreError::Encode { file: path.clone(), error: Box::new(error) })
    })
}

fn write_columns(file: &mut File, batches: &[Arc<Batch>]) -> Result<(), ParquetError> {
    let rows = batches.iter().map(|batch| batch.rows).sum();
    let mut ends = Batch { rows, ..Batch::empty() };
    for column in order::columns() {
        ends.columns[column] = Batch::joined_column(batches, column);
    }
    let order = order::by_ends(&ends);
    let writer = ArrowWriter::try_new(file, schema::schema(), Some(properties()))?;
    let (mut writer, columns) = writer.into_serialized_writer()?;
    let mut group = writer.next_row_group()?;
    let writers = columns.create_column_writers(0)?;
    for (position, mut writer) in writers.into_iter().enumerate() {
        let array = match Batch::joined_column(batches, position) {
            Some(array) => take(&array, &order, None)?,
            None => new_null_array(&COLUMNS[position].storage.data_type(), rows),
        };
        for leaf in compute_leaves(schema::schema().field(position), &array)? {
            writer.write(&leaf)?;
        }
        writer.close()?.append_to_row_group(&mut group)?;
    }
    group.close()?;
    writer.close()?;
    Ok(())
}

fn properties() -> WriterProperties {
    let level = ZstdLevel::try_new(1).expect("level 1 exists");
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_created_by(concat!("weir ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new(FORMAT_NAME.to_owned(), FORMAT.to_owned())]));
    for column in SPLIT {
        let path = ColumnPath::from(column);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::BYTE_STREAM_SPLIT);
    }
    properties.build()
}

/// Columns of numbers that are nearly all different, and small for their type: their bytes are kept apart, so that the
/// upper ones take no room. Dictionaries suit the others, times and totals included. Measured column by column on the
/// flows of `cargo xtask bench store`.
const SPLIT: [&str; 14] = [
    schema::SKEW,
    "source.port",
    "flow.bytes",
    "flow.packets",
    "flow.joined",
    "flow.before.packets",
    "flow.reverse.bytes",
    "flow.reverse.packets",
    "flow.reverse.joined",
    "flow.reverse.before.packets",
    "source.socket.cookie",
    "source.cgroup.id",
    "destination.socket.cookie",
    "destination.cgroup.id",
];

/// A segment that is read.
pub(super) struct Reader {
    file: File,
    metadata: ArrowReaderMetadata,
    /// For each column of the schema, its place in the file.
    places: Vec<Option<usize>>,
}

impl Reader {
    /// Opens a segment and reads its footer.
    pub(super) fn open(path: &Path) -> Result<Self, Unreadable> {
        let file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Unreadable::Gone,
            _ => Unreadable::Io(error),
        })?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
        let metadata = ArrowReaderMetadata::load(&file, options)?;
        let said = metadata.metadata().file_metadata().key_value_metadata();
        let said = said.and_then(|said| said.iter().find(|entry| entry.key == FORMAT_NAME));
        let found = said.and_then(|entry| entry.value.clone()).unwrap_or_else(|| "none".to_owned());
        if found != FORMAT {
            return Err(Unreadable::Format { found });
        }
        let columns = metadata.parquet_schema().columns();
        let places = COLUMNS
            .iter()
            .map(|column| columns.iter().position(|candidate| candidate.name() == column.name))
            .collect();
        Ok(Self { file, metadata, places })
    }

    /// Number of row groups.
    pub(super) fn groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    /// Time of the first and the last row of a group; everything where the file does not say.
    pub(super) fn times_ms(&self, group: usize) -> (i64, i64) {
        self.statistics(self.metadata.metadata().row_group(group)).unwrap_or((i64::MIN, i64::MAX))
    }

    fn statistics(&self, group: &RowGroupMetaData) -> Option<(i64, i64)> {
        let place = self.places[schema::position(RECORDED)?]?;
        match group.column(place).statistics()? {
            Statistics::Int64(times) => Some((*times.min_opt()?, *times.max_opt()?)),
            _ => None,
        }
    }

    /// Reads a row group and hands out what `select` selects, with the columns that are `taken` and those that are
    /// `deciding`, on which the selection depends. Where few rows are selected, only these are read.
    pub(super) fn read_group(
        &self,
        group: usize,
        (deciding, taken): (&[usize], &[usize]),
        select: &dyn Fn(&Batch) -> Vec<bool>,
        take: &mut dyn FnMut(Batch, Vec<bool>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Unreadable> {
        let mut all = [deciding, taken].concat();
        all.sort_unstable();
        all.dedup();
        let mut decided = None;
        if deciding.len() > 1 {
            let rows = self.rows(group);
            let mut selected = Vec::with_capacity(rows);
            for batch in self.batches(group, deciding, None, rows)? {
                selected.extend(select(&batch?));
            }
            let numbers = numbers(&selected);
            if numbers.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            if numbers.len() < rows / SPARSE {
                let batch = self.some(group, &all, numbers)?;
                let selected = vec![true; batch.rows];
                return Ok(take(batch, selected));
            }
            decided = Some(selected);
        }
        let mut first = 0;
        for batch in self.batches(group, &all, None, BATCH)? {
            let batch = batch?;
            let selected = match &decided {
                Some(selected) => selected[first..first + batch.rows].to_vec(),
                None => select(&batch),
            };
            first += batch.rows;
            if selected.contains(&true) && take(batch, selected).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Some columns of some rows of a group, whose numbers are in order.
    pub(super) fn some(&self, group: usize, columns: &[usize], rows: Vec<u32>) -> Result<Batch, Unreadable> {
        let count = rows.len();
        let read = match self.batches(group, columns, Some(&rows), count)?.next() {
            Some(read) => read?,
            None => Batch::empty(),
        };
        Ok(Batch { numbers: Numbers::Listed(rows), ..read })
    }

    /// Whether a column has a value in every row of a group, as far as the file says so.
    pub(super) fn is_full(&self, group: usize, column: usize) -> bool {
        self.places[column].is_some_and(|place| self.nulls(group, place) == Some(0))
    }

    /// Rows of a group without a value in the column at this place of the file.
    fn nulls(&self, group: usize, place: usize) -> Option<u64> {
        self.metadata.metadata().row_group(group).column(place).statistics()?.null_count_opt()
    }

    /// Rows of a group.
    fn rows(&self, group: usize) -> usize {
        usize::try_from(self.metadata.metadata().row_group(group).num_rows()).unwrap_or_default()
    }

    /// Some columns of a row group, of all rows or of some, which are in order; so many rows at a time.
    fn batches(
        &self,
        group: usize,
        columns: &[usize],
        some: Option<&[u32]>,
        size: usize,
    ) -> Result<impl Iterator<Item = Result<Batch, Unreadable>>, Unreadable> {
        let rows = self.rows(group);
        // A column without values would be read value by value, which takes longer than all others together.
        let is_empty = |place: &usize| self.nulls(group, *place).is_some_and(|nulls| nulls >= rows as u64);
        let places = columns.iter().filter_map(|column| self.places[*column]);
        let places: Vec<usize> = places.filter(|place| !is_empty(place)).collect();
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.try_clone()?, self.metadata.clone());
        let mask = ProjectionMask::leaves(builder.parquet_schema(), places);
        let mut builder = builder.with_projection(mask).with_row_groups(vec![group]).with_batch_size(size);
        if let Some(some) = some {
            let ranges = some.iter().map(|row| *row as usize..*row as usize + 1);
            builder = builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges, rows));
        }
        let mut first = 0;
        Ok(builder.build()?.map(move |read| {
            let read = batch(&read.map_err(ParquetError::from)?, first);
            first = first.saturating_add(u32::try_from(read.rows).unwrap_or(u32::MAX));
            Ok(read)
        }))
    }
}

/// The numbers of the rows that are selected.
fn numbers(selected: &[bool]) -> Vec<u32> {
    let selected = selected.iter().enumerate().filter(|(_, selected)| **selected);
    selected.filter_map(|(row, _)| u32::try_from(row).ok()).collect()
}

/// Puts the columns of the file in the places of the schema; one of another type is as good as none.
fn batch(read: &RecordBatch, first: u32) -> Batch {
    let mut batch = Batch { rows: read.num_rows(), numbers: Numbers::From(first), ..Batch::empty() };
    for (field, array) in read.schema_ref().fields().iter().zip(read.columns()) {
        if let Some(position) = schema::position(field.name())
            && *array.data_type() == COLUMNS[position].storage.data_type()
        {
            batch.columns[position] = Some(Arc::clone(array));
        }
    }
    batch
}
