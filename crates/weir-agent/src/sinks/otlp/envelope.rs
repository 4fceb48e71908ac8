//! [`Envelope`]: what is around the entries of every request: the resource that they come from, and who wrote them.
//!
//! Requests with logs, spans and metrics have the same shape, with the same numbers of fields (`collector/*/v1`):
//! `{1: {1: resource, 2: {1: scope, 2: entry, 2: entry, …}}}`.

use bytes::Bytes;

use super::wire;

const OF_RESOURCE: u32 = 1;
const RESOURCE: u32 = 1;
const OF_SCOPE: u32 = 2;
const SCOPE: u32 = 1;

/// The field of an entry.
pub(super) const ENTRY: u32 = 2;

/// Fields of `Resource` and `InstrumentationScope`.
const RESOURCE_ATTRIBUTES: u32 = 1;
const SCOPE_NAME: u32 = 1;
const SCOPE_VERSION: u32 = 2;

/// Resource and scope.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl Envelope {
    /// With these attributes of the resource.
    pub(super) fn new(resource: &[(String, String)]) -> Self {
        let mut attributes = Vec::new();
        wire::message(&mut attributes, RESOURCE, |out| {
            for (name, value) in resource {
                wire::text_attribute(out, RESOURCE_ATTRIBUTES, name, value);
            }
        });
        let mut scope = Vec::new();
        wire::message(&mut scope, SCOPE, |out| {
            wire::bytes(out, SCOPE_NAME, b"weir");
            wire::bytes(out, SCOPE_VERSION, env!("CARGO_PKG_VERSION").as_bytes());
        });
        Self { resource: attributes, scope }
    }

    /// A buffer for entries, with room for the rest before them.
    pub(super) fn open(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.resize(self.room(), 0);
    }

    /// A whole request of what was appended to the buffer since it was opened.
    pub(super) fn seal(&self, mut buffer: Vec<u8>) -> Bytes {
        let room = self.room();
        let entries = buffer.len() - room;
        let mut of_scope = Vec::with_capacity(room);
        let length_of_scope = self.scope.len() + entries;
        wire::header(&mut of_scope, OF_SCOPE, length_of_scope);
        let length_of_resource = self.resource.len() + of_scope.len() + length_of_scope;
        let mut prefix = Vec::with_capacity(room);
        wire::header(&mut prefix, OF_RESOURCE, length_of_resource);
        prefix.extend_from_slice(&self.resource);
        prefix.extend_from_slice(&of_scope);
        prefix.extend_from_slice(&self.scope);
        let start = room - prefix.len();
        buffer[start..room].copy_from_slice(&prefix);
        Bytes::from(buffer).slice(start..)
    }

    /// Most bytes that come before the entries.
    pub(super) fn room(&self) -> usize {
        self.resource.len() + self.scope.len() + 2 * (1 + wire::LONGEST_VARINT)
    }
}
