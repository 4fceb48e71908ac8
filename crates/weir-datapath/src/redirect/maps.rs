//! The maps of the `redirect` object, by their pins.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use weir_common::redirect::{
    BackendCounts, BackendValue, CHUNK_BACKENDS, ConnectionValue, LocalConfig, OwnAddress, PORT_BITMAPS,
    PORT_WORDS, PlaceValue, PrefixValue, REASONS, RedirectConfig, RuleValue,
};

use super::error::RedirectError;
use crate::flow::shared::SharedArray;

/// Words of the keys and values.
pub(super) const CONNECTION_WORDS: usize = size_of::<ConnectionValue>() / 8;
const RULE_WORDS: usize = size_of::<RuleValue>() / 8;
const BACKEND_WORDS: usize = size_of::<BackendValue>() / 8;
const COUNT_WORDS: usize = size_of::<BackendCounts>() / 8;
const PREFIX_WORDS: usize = size_of::<PrefixValue>() / 4;
const PLACE_WORDS: usize = size_of::<PlaceValue>() / 8;
const CONFIG_WORDS: usize = size_of::<RedirectConfig>() / 8;
const LOCAL_WORDS: usize = size_of::<LocalConfig>() / 8;
const OWN_WORDS: usize = size_of::<OwnAddress>() / 8;

/// Names of the maps that are pinned.
pub(super) const PINNED: [&str; 18] = [
    "PORTS",
    "CONNECTIONS",
    "LISTENERS",
    "PREFIXES",
    "RULES",
    "TABLES",
    "BACKENDS",
    "COUNTS",
    "REASONS",
    "RETIRED",
    "FRAGMENTS",
    "AFFINITY",
    "RATES",
    "CONFIG",
    "PLACES",
    "LOCAL",
    "OWN_ADDRESSES",
    "LOCAL_SOCKETS",
];

pub(super) type Connections = HashMap<MapData, [u64; 5], [u64; CONNECTION_WORDS]>;

/// The maps, open.
pub(super) struct Maps {
    pub(super) ports: SharedArray<[u64; PORT_WORDS]>,
    pub(super) connections: Connections,
    /// The same map, for what aya does not offer.
    connections_data: MapData,
    /// Another table, where what is not in this one may be: while connections are moved.
    pub(super) beside: Option<Connections>,
    pub(super) listeners: HashMap<MapData, [u64; 3], u32>,
    pub(super) prefixes: LpmTrie<MapData, [u8; 20], [u32; PREFIX_WORDS]>,
    pub(super) rules: HashMap<MapData, u32, [u64; RULE_WORDS]>,
    pub(super) tables: SharedArray<[u64; CHUNK_BACKENDS / 2]>,
    pub(super) chunks: usize,
    pub(super) backends: Array<MapData, [u64; BACKEND_WORDS]>,
    pub(super) counts: PerCpuArray<MapData, [u64; COUNT_WORDS]>,
    pub(super) reasons: PerCpuArray<MapData, [u64; REASONS]>,
    pub(super) retired: HashMap<MapData, u32, [u64; COUNT_WORDS]>,
    pub(super) config: Array<MapData, [u64; CONFIG_WORDS]>,
    pub(super) places: HashMap<MapData, u32, [u64; PLACE_WORDS]>,
    pub(super) local: Array<MapData, [u64; LOCAL_WORDS]>,
    pub(super) own_addresses: HashMap<MapData, [u64; OWN_WORDS], u32>,
    /// Connections that fit.
    pub(super) capacity: u32,
}

impl Maps {
    /// Opens the maps that are pinned in `directory`.
    pub(super) fn open(directory: &Path) -> Result<Self, RedirectError> {
        Self::open_with(directory, &directory.join("CONNECTIONS"))
    }

    /// The same with another table of connections.
    pub(super) fn open_with(directory: &Path, connections: &Path) -> Result<Self, RedirectError> {
        let pinned = |name: &'static str| {
            let data = MapData::from_pin(directory.join(name));
            data.and_then(Map::from_map_data).map_err(failed(name))
        };
        let connections_data = MapData::from_pin(connections).map_err(failed("CONNECTIONS"))?;
        let (connections, entries) = open_connections(connections)?;
        let tables = pinned("TABLES")?;
        let chunks = self::entries(&tables, "TABLES")?;
        let share = |name| move |source| RedirectError::MapCall { name, source };
        Ok(Self {
            ports: SharedArray::new(&pinned("PORTS")?, PORT_BITMAPS).map_err(share("PORTS"))?,
            connections_data,
            connections,
            beside: None,
            listeners: pinned("LISTENERS")?.try_into().map_err(failed("LISTENERS"))?,
            prefixes: pinned("PREFIXES")?.try_into().map_err(failed("PREFIXES"))?,
            rules: pinned("RULES")?.try_into().map_err(failed("RULES"))?,
            tables: SharedArray::new(&tables, chunks).map_err(share("TABLES"))?,
            chunks: chunks as usize,
            backends: pinned("BACKENDS")?.try_into().map_err(failed("BACKENDS"))?,
            counts: pinned("COUNTS")?.try_into().map_err(failed("COUNTS"))?,
            reasons: pinned("REASONS")?.try_into().map_err(failed("REASONS"))?,
            retired: pinned("RETIRED")?.try_into().map_err(failed("RETIRED"))?,
            config: pinned("CONFIG")?.try_into().map_err(failed("CONFIG"))?,
            places: pinned("PLACES")?.try_into().map_err(failed("PLACES"))?,
            local: pinned("LOCAL")?.try_into().map_err(failed("LOCAL"))?,
            own_addresses: pinned("OWN_ADDRESSES")?.try_into().map_err(failed("OWN_ADDRESSES"))?,
            capacity: entries / 2,
        })
    }

    /// The descriptor of the table of connections.
    pub(super) fn connections_fd(&self) -> BorrowedFd<'_> {
        self.connections_data.fd().as_fd()
    }

    /// Overwrites a connection's entry, if it is still there. Says whether it was.
    pub(super) fn replace(&mut self, key: &[u64; 5], value: &ConnectionValue) -> Result<bool, RedirectError> {
        const BPF_EXIST: u64 = 2;
        let words: [u64; CONNECTION_WORDS] = zerocopy::transmute!(*value);
        is_there(self.connections.insert(key, words, BPF_EXIST), "CONNECTIONS")
    }

    /// Removes a connection's entry. Says whether it was there.
    pub(super) fn remove(&mut self, key: &[u64; 5]) -> Result<bool, RedirectError> {
        let was_beside = match &mut self.beside {
            Some(beside) => is_there(beside.remove(key), "CONNECTIONS")?,
            None => false,
        };
        Ok(is_there(self.connections.remove(key), "CONNECTIONS")? || was_beside)
    }

    /// A connection's entry.
    pub(super) fn lookup(&self, key: &[u64; 5]) -> Result<Option<ConnectionValue>, RedirectError> {
        for map in [Some(&self.connections), self.beside.as_ref()].into_iter().flatten() {
            let found: Option<[u64; CONNECTION_WORDS]> = found(map.get(key, 0), "CONNECTIONS")?;
            if let Some(words) = found {
                return Ok(Some(zerocopy::transmute!(words)));
            }
        }
        Ok(None)
    }
}

/// A table of connections, and how many entries it has room for.
pub(super) fn open_connections(pin: &Path) -> Result<(Connections, u32), RedirectError> {
    let failed = || failed("CONNECTIONS");
    let map = MapData::from_pin(pin).and_then(Map::from_map_data).map_err(failed())?;
    let entries = entries(&map, "CONNECTIONS")?;
    Ok((map.try_into().map_err(failed())?, entries))
}

/// What a failed access to a map is called.
pub(super) fn failed(name: &'static str) -> impl Fn(MapError) -> RedirectError {
    move |source| RedirectError::Map { name, source }
}

/// A lookup's outcome, where there may be nothing.
pub(super) fn found<T>(outcome: Result<T, MapError>, name: &'static str) -> Result<Option<T>, RedirectError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(None),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RedirectError::Map { name, source }),
    }
}

/// A change's outcome, where there may have been nothing to change.
pub(super) fn is_there(outcome: Result<(), MapError>, name: &'static str) -> Result<bool, RedirectError> {
    Ok(found(outcome, name)?.is_some())
}

fn entries(map: &Map, name: &'static str) -> Result<u32, RedirectError> {
    let (Map::HashMap(data) | Map::Array(data)) = map else { return Ok(0) };
    Ok(data.info().map_err(failed(name))?.max_entries())
}
