//! Traffic between workloads for `/metrics`.
//!
//! [`EdgeTable`] adds up the edges of the service map and decides which of them get series of their own. The HTTP interface
//! shows it; nothing is sent from here.

mod config;
mod edges;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwapOption;

pub(crate) use self::edges::FIRST_EPHEMERAL;
pub use self::{
    config::{Document, Plan},
    edges::{EdgeSnapshot, EdgeTable, Sums},
};
use crate::outlet::{Consumer, Parcel, Patience, Receipt, WriteError};

/// Where the HTTP interface finds the table, if there is one.
#[derive(Debug, Default)]
pub struct Exposed(ArcSwapOption<EdgeTable>);

/// Adds batches to a table that is exposed as long as this lives.
#[derive(Debug)]
pub struct EdgeWriter {
    table: Arc<EdgeTable>,
    exposed: Arc<Exposed>,
}

impl Exposed {
    /// The table.
    pub fn shown(&self) -> Option<Arc<EdgeTable>> {
        self.0.load_full()
    }
}

impl EdgeWriter {
    /// Exposes a new table.
    pub fn new(plan: Plan, exposed: Arc<Exposed>) -> Self {
        let table = Arc::new(EdgeTable::new(plan));
        exposed.0.store(Some(Arc::clone(&table)));
        Self { table, exposed }
    }
}

impl Drop for EdgeWriter {
    fn drop(&mut self) {
        // Another one may have taken its place.
        let shown = self.exposed.shown();
        if shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, &self.table)) {
            self.exposed.0.compare_and_swap(&shown, None);
        }
    }
}

impl Consumer for EdgeWriter {
    fn write(&mut self, parcels: &[Parcel], _patience: &Patience) -> Result<Receipt, WriteError> {
        for parcel in parcels {
            self.table.add(&parcel.batch);
        }
        Ok(Receipt::default())
    }
}
