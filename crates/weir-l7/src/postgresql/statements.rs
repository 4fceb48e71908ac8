//! [`Statements`]: the texts of prepared statements of one connection, and which portal executes which.

use std::{collections::BTreeMap, sync::Arc};

/// Most named statements, and most portals, that are remembered. Those beyond have no text.
const MOST_NAMES: usize = 256;

/// Longest name that is remembered; the server cuts at 63 bytes.
const MOST_NAME: usize = 128;

/// Most bytes of all texts of named statements.
const MOST_TEXT: usize = 256 << 10;

/// Texts by name. The statement and the portal without a name have the empty one.
#[derive(Debug, Default)]
pub(super) struct Statements {
    texts: BTreeMap<Vec<u8>, Arc<str>>,
    portals: BTreeMap<Vec<u8>, Arc<str>>,
    bytes: usize,
}

impl Statements {
    pub(super) fn parse(&mut self, name: &[u8], statement: &str) {
        if let Some(before) = self.texts.remove(name) {
            self.bytes -= before.len();
        }
        let has_room = self.texts.len() < MOST_NAMES && self.bytes + statement.len() <= MOST_TEXT;
        if name.is_empty() || has_room && name.len() <= MOST_NAME {
            self.bytes += statement.len();
            self.texts.insert(name.to_vec(), statement.into());
        }
    }

    pub(super) fn bind(&mut self, portal: &[u8], statement: &[u8]) {
        self.portals.remove(portal);
        let Some(text) = self.texts.get(statement) else { return };
        if portal.is_empty() || self.portals.len() < MOST_NAMES && portal.len() <= MOST_NAME {
            self.portals.insert(portal.to_vec(), Arc::clone(text));
        }
    }

    /// Any portal may execute another statement now.
    pub(super) fn forget_portals(&mut self) {
        self.portals.clear();
    }

    /// `of` is `S` for a statement and `P` for a portal.
    pub(super) fn close(&mut self, of: u8, name: &[u8]) {
        if of == b'P' {
            self.portals.remove(name);
        } else if let Some(text) = self.texts.remove(name) {
            self.bytes -= text.len();
        }
    }

    pub(super) fn of_portal(&self, portal: &[u8]) -> Option<Arc<str>> {
        self.portals.get(portal).map(Arc::clone)
    }
}
