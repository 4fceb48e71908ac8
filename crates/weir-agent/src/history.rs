//! [`HistoryWriter`]: the way from the pipeline into the store.

use std::sync::Arc;

use crate::{
    causes::with_causes,
    journal,
    outlet::{Consumer, Parcel, Patience, Receipt, WriteError},
    store::{EmbeddedStore, Store as _},
};

/// Appends batches to a store.
pub struct HistoryWriter {
    store: Arc<EmbeddedStore>,
    /// What was last said of its trouble.
    trouble: Option<String>,
}

impl HistoryWriter {
    /// A writer for this store. Says which files were set aside, now or at an earlier start.
    pub fn new(store: Arc<EmbeddedStore>) -> Self {
        for name in store.damaged().unwrap_or_default() {
            journal::warn(format_args!(
                "store: {name} is damaged or of another version and was set aside: remove it when nobody needs it"
            ));
        }
        Self { store, trouble: None }
    }
}

impl Consumer for HistoryWriter {
    /// Whatever is wrong, a full disk most likely, may pass.
    fn write(&mut self, parcels: &[Parcel], _patience: &Patience) -> Result<Receipt, WriteError> {
        // One at a time: its outlet asks for no more, and of several the first might be written again.
        for Parcel { batch, .. } in parcels {
            let appended = self.store.append(&batch.records, &batch.tick);
            appended.map_err(|error| WriteError::Retry(error.into()))?;
        }
        // The rows are safe; what comes after may fail and is tried again by the store itself.
        let trouble = self.store.trouble();
        if trouble != self.trouble {
            match &trouble {
                Some(trouble) => journal::warn(format_args!("store: {trouble}")),
                None => journal::info("store: in order again"),
            }
            self.trouble = trouble;
        }
        Ok(Receipt::default())
    }

    fn finish(&mut self) {
        if let Err(error) = self.store.flush() {
            journal::warn(format_args!("store: {}: the next start puts it in order", with_causes(&error)));
        }
    }
}
