//! Segments: immutable Parquet files of raw flows.
//!
//! Zstandard level 1, texts as dictionaries, rows in the order of their ends ([`order`]), row groups with least and
//! greatest values. Only the columns that a query asks for are read, and those that its filter does not need only
//! where a row of the group passed the filter. A row group is read as one batch, so texts are looked at once each.

use std::{fs::File, io, ops::ControlFlow, path::Path, sync::Arc};

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use parquet::{
    arrow::{
        ArrowWriter, ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
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
    batch::Batch,
    directory::{Directory, SegmentName},
    order,
    schema::{self, COLUMNS, RECORDED},
};

/// Most rows in one row group. A segment is one row group, unless a single tick brings more.
const ROW_GROUP: usize = 4 * ROWS;

/// Rows that a segment has by default, and most rows of a batch.
pub(super) const ROWS: usize = 65_536;

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
}

/// Writes the batches as a segment; it is there whole or not at all.
pub(super) fn write(
    directory: &Directory,
    name: &SegmentName,
    batches: &[Arc<Batch>],
) -> Result<(), StoreError> {
    let path = directory.segment(name);
    let failed = |error: ParquetError| StoreError::Encode { file: path.clone(), error: Box::new(error) };
    directory.write_whole(&path, |file| {
        let mut writer = ArrowWriter::try_new(file, schema::schema(), Some(properties())).map_err(failed)?;
        let batch = order::by_ends(&Batch::joined(batches));
        let columns = COLUMNS.iter().zip(batch.columns).map(|(column, array)| {
            array.unwrap_or_else(|| new_null_array(&column.storage.data_type(), batch.rows))
        });
        let columns: Vec<ArrayRef> = columns.collect();
        let rows = RecordBatch::try_new(schema::schema(), columns);
        let rows = rows.map_err(|error| failed(ParquetError::from(error)))?;
        writer.write(&rows).map_err(failed)?;
        writer.close().map_err(failed)?;
        Ok(())
    })
}

fn properties() -> WriterProperties {
    let level = ZstdLevel::try_new(1).expect("level 1 exists");
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_created_by(concat!("weir ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new("weir.format".to_owned(), "1".to_owned())]));
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
const SPLIT: [&str; 13] = [
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

    /// Reads the `deciding` columns of a row group and, if `select` selects any row, those that are `taken`; hands
    /// both to `take`.
    pub(super) fn read_group(
        &self,
        group: usize,
        deciding: &[usize],
        taken: &[usize],
        select: &dyn Fn(&Batch) -> Vec<bool>,
        take: &mut dyn FnMut(&Batch, &[bool]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Unreadable> {
        let mut batch = self.columns(group, deciding)?;
        let selected = select(&batch);
        if !selected.contains(&true) {
            return Ok(ControlFlow::Continue(()));
        }
        let more: Vec<usize> =
            taken.iter().copied().filter(|column| batch.columns[*column].is_none()).collect();
        for (place, column) in batch.columns.iter_mut().zip(self.columns(group, &more)?.columns) {
            if column.is_some() {
                *place = column;
            }
        }
        Ok(take(&batch, &selected))
    }

    /// Some columns of a row group.
    pub(super) fn columns(&self, group: usize, columns: &[usize]) -> Result<Batch, Unreadable> {
        let rows = self.metadata.metadata().row_group(group).num_rows();
        let rows = usize::try_from(rows).unwrap_or_default();
        let places: Vec<usize> = columns.iter().filter_map(|column| self.places[*column]).collect();
        if places.is_empty() {
            return Ok(Batch { rows, ..Batch::empty() });
        }
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.try_clone()?, self.metadata.clone());
        let mask = ProjectionMask::leaves(builder.parquet_schema(), places);
        let mut reader = builder
            .with_projection(mask)
            .with_row_groups(vec![group])
            .with_batch_size(rows.max(1))
            .build()?;
        match reader.next() {
            Some(read) => Ok(batch(&read.map_err(ParquetError::from)?)),
            None => Ok(Batch::empty()),
        }
    }
}

/// Puts the columns of the file in the places of the schema; one of another type is as good as none.
fn batch(rows: &RecordBatch) -> Batch {
    let mut batch = Batch { rows: rows.num_rows(), ..Batch::empty() };
    for (field, array) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        if let Some(position) = schema::position(field.name())
            && *array.data_type() == COLUMNS[position].storage.data_type()
        {
            batch.columns[position] = Some(Arc::clone(array));
        }
    }
    batch
}
