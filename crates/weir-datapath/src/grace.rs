//! Waiting until no program is running any more that started before.

use aya::maps::{Array, ArrayOfMaps, Map, MapData, MapError};

type Inner = Array<MapData, u32>;

/// The map of maps `GRACE` of an object, which no program uses: the kernel lets an update of such a map return only
/// after an RCU grace period (`maybe_wait_bpf_programs`, since 4.20, 1ae80cf31938).
pub(crate) struct Grace {
    outer: ArrayOfMaps<MapData, Inner>,
    inner: Inner,
}

impl Grace {
    /// Takes over the map.
    pub(crate) fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self { outer: map.try_into()?, inner: Inner::create(1, 0)? })
    }

    /// Waits; 8 to 12 ms on average, 100 ms under load.
    pub(crate) fn wait(&mut self) -> Result<(), MapError> {
        self.outer.set(0, &self.inner, 0)
    }
}
