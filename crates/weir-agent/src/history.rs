//! [`HistoryWriter`]: the way from the pipeline into the store.

use std::sync::Arc;

use crate::{
    batch::Batch,
    causes::with_causes,
    journal,
    outlet::{Consumer, Patience, WriteError},
    store::{EmbeddedStore, Store as _},
};

/// Appends batches to a store.
pub struct HistoryWriter {
    store: Arc<EmbeddedStore>,
    /// What was last said of its trouble.
    trouble: Option<String>,
}

impl HistoryWriter {
    /// A writer for this store.
    pub fn new(store: Arc<EmbeddedStore>) -> Self {
        Self { store, trouble: None }
    }
}

impl Consumer for HistoryWriter {
    /// Whatever is wrong, a full disk most likely, may pass.
    fn write(&mut self, batch: &Batch, _patience: &Patience) -> Result<(), WriteError> {
        self.store.append(&batch.records, &batch.tick).map_err(|error| WriteError::Retry(error.into()))?;
        // The rows are safe; what comes after may fail and is tried again by the store itself.
        let trouble = self.store.trouble();
        if trouble != self.trouble {
            match &trouble {
                Some(trouble) => journal::warn(format_args!("store: {trouble}")),
                None => journal::info("store: in order again"),
            }
            self.trouble = trouble;
        }
        Ok(())
    }

    fn finish(&mut self) {
        if let Err(error) = self.store.flush() {
            journal::warn(format_args!("store: {}: the next start puts it in order", with_causes(&error)));
        }
    }
}
