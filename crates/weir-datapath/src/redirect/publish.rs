//! Bringing the kernel from what is published to what is wanted.
//!
//! What new things need is written before they can be found, what is no longer found is removed afterwards. A rule is
//! one value of a hash map, which the kernel replaces at once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use aya::maps::lpm_trie::Key;
use weir_common::redirect::{
    BackendCounts, BackendValue, CHUNK_BACKENDS, KEY_PROTOCOL, ListenerKey, PORT_WORDS, PORTS_FORWARD_TCP,
    PORTS_FORWARD_UDP, PORTS_REVERSE_TCP, PORTS_REVERSE_UDP, PrefixKey, PrefixValue, REASONS, RuleValue,
    is_forward,
};

use super::{
    check::{Before, Lookup, Wanted},
    counters::Published,
    desired::{BackendId, BackendState, Desired, Ports, RuleId, RuleState, Standing, Transport},
    error::RedirectError,
    local::is_here,
    maps::{Maps, failed, found, is_there},
    tables::{Extent, Need, Placement, Room},
    words::{backend_state, backend_value, rule_state, rule_value},
};
use crate::grace::Grace;

/// What is in the kernel.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) rules: BTreeMap<RuleId, RuleState>,
    pub(super) backends: BTreeMap<BackendId, BackendState>,
    /// Backends as the kernel has them.
    written: HashMap<BackendId, [u64; 4]>,
    lookup: Lookup,
    /// Whether all of it was published at once, as far as is known: what was read may be the half of something.
    is_whole: bool,
    extents: BTreeMap<RuleId, Extent>,
    room: Room,
}

/// How much a backend of this standing takes.
fn rank(standing: Standing) -> u8 {
    match standing {
        Standing::Gone => 0,
        Standing::Draining => 1,
        Standing::Up => 2,
    }
}

/// Bitmaps of ports.
pub(super) type PortBits = [Box<[u64; PORT_WORDS]>; 4];

/// Bitmaps without any port.
pub(super) fn no_ports() -> PortBits {
    std::array::from_fn(|_| Box::new([0; PORT_WORDS]))
}

/// Adds ports, 64 at a time.
fn add_ports(bits: &mut [u64; PORT_WORDS], ports: Ports) {
    let (first, last) = (usize::from(ports.first), usize::from(ports.last));
    let words = bits.iter_mut().enumerate();
    for (place, word) in words.take(last / 64 + 1).skip(first / 64) {
        let from = first.saturating_sub(place * 64);
        let to = (last - place * 64).min(63);
        *word |= u64::MAX << from & u64::MAX >> (63 - to);
    }
}

/// Adds a port.
fn add_port(bits: &mut [u64; PORT_WORDS], port: u16) {
    bits[usize::from(port / 64)] |= 1 << (port % 64);
}

impl Mirror {
    /// Reads what is published. What a dead process or an error left half written, such as a rule that no listener leads
    /// to, is part of it: the next time that anything is published, everything is looked at, and the rest is written.
    pub(super) fn read(maps: &Maps) -> Result<Self, RedirectError> {
        let mut mirror = Self {
            rules: BTreeMap::new(),
            backends: BTreeMap::new(),
            written: HashMap::new(),
            lookup: Lookup::default(),
            is_whole: false,
            extents: BTreeMap::new(),
            room: Room::new(maps.chunks),
        };
        for entry in &maps.rules {
            let (id, words) = entry.map_err(failed("RULES"))?;
            let value: RuleValue = zerocopy::transmute!(words);
            let (table, extent) = read_table(maps, &value);
            if let Some(extent) = extent {
                mirror.room.occupy(extent);
                mirror.extents.insert(RuleId(id), extent);
            }
            mirror.rules.insert(RuleId(id), rule_state(RuleId(id), &value, table));
        }
        for id in 1..=BackendId::LAST.0 {
            let words = maps.backends.get(&id, 0).map_err(failed("BACKENDS"))?;
            let value: BackendValue = zerocopy::transmute!(words);
            if let Some(backend) = backend_state(BackendId(id), &value) {
                mirror.backends.insert(BackendId(id), backend);
                mirror.written.insert(BackendId(id), words);
            }
        }
        for entry in &maps.listeners {
            let (key, rule) = entry.map_err(failed("LISTENERS"))?;
            let key: ListenerKey = zerocopy::transmute!(key);
            mirror.lookup.listeners.insert(key, RuleId(rule));
        }
        for key in maps.prefixes.keys() {
            let key = key.map_err(failed("PREFIXES"))?;
            if let Some(words) = found(maps.prefixes.get(&key, 0), "PREFIXES")? {
                let value: PrefixValue = zerocopy::transmute!(words);
                let prefix: PrefixKey = zerocopy::transmute!(key.data());
                mirror.lookup.prefixes.insert((key.prefix_len(), prefix), value);
            }
        }
        Ok(mirror)
    }

    /// What is published.
    pub(super) fn desired(&self) -> Desired {
        Desired {
            rules: self.rules.values().cloned().collect(),
            backends: self.backends.values().copied().collect(),
        }
    }

    /// Ports that rules and backends need.
    pub(super) fn ports(&self) -> PortBits {
        needed_ports(&self.rules, self.rules.values(), self.backends.values())
    }

    /// Writes the backends again, after the addresses of this host have changed.
    pub(super) fn relocate(
        &mut self,
        maps: &mut Maps,
        local: &BTreeSet<IpAddr>,
    ) -> Result<(), RedirectError> {
        let backends: Vec<BackendState> = self.backends.values().copied().collect();
        self.place_backends(maps, &backends.iter().collect::<Vec<_>>(), local).map(drop)
    }

    /// Writes backends. Says how many are not what they were.
    fn place_backends(
        &mut self,
        maps: &mut Maps,
        backends: &[&BackendState],
        local: &BTreeSet<IpAddr>,
    ) -> Result<u64, RedirectError> {
        let mut changed = 0;
        for backend in backends {
            let id = backend.id;
            let value = backend_value(backend, is_here(backend.address.ip(), local));
            let words: [u64; 4] = zerocopy::transmute!(value);
            if self.written.get(&id) != Some(&words) {
                maps.backends.set(id.0, words, 0).map_err(failed("BACKENDS"))?;
                self.written.insert(id, words);
            }
            changed += u64::from(self.backends.get(&id) != Some(*backend));
        }
        Ok(changed)
    }

    /// Brings the kernel to `desired`. `local` are the addresses of this host.
    pub(super) fn publish(
        &mut self,
        maps: &mut Maps,
        desired: &Desired,
        local: &BTreeSet<IpAddr>,
        grace: &mut Grace,
    ) -> Result<(Published, BTreeSet<BackendId>), RedirectError> {
        let before = Before { rules: &self.rules, backends: &self.backends, is_whole: self.is_whole };
        let wanted = Wanted::new(desired, &before)?;
        let changed = &wanted.rule_changes.changed;
        let needs: Vec<Need> = changed.iter().map(|id| need(&wanted.rules[id])).collect();
        let mut published = Published { rules_changed: needs.len() as u64, ..Published::default() };
        let rounds = self.room.plan(&needs, &self.extents).map_err(|(wanted, free)| {
            RedirectError::Tables { wanted: wanted * CHUNK_BACKENDS, free: free * CHUNK_BACKENDS }
        })?;

        // Those that take less than before come last: until then, rules may lead to nobody else.
        let changed = wanted.backend_changes.changed.iter().map(|id| &wanted.backends[id]);
        let (lowered, others): (Vec<_>, Vec<_>) = changed.partition(|backend| {
            let before = self.backends.get(&backend.id);
            before.is_some_and(|before| rank(before.standing) > rank(backend.standing))
        });
        published.backends_changed += self.place_backends(maps, &others, local)?;
        Self::open_ports(maps, &wanted);
        for (number, round) in rounds.into_iter().enumerate() {
            if number != 0 {
                // Only now, because it takes a while.
                grace.wait().map_err(failed("GRACE"))?;
                self.room.settle();
            }
            for Placement { rule, extent, is_old } in round {
                // One that goes away at the end may have to make room before.
                let wanted = wanted.rules.get(&rule).filter(|_| !is_old);
                let state = wanted.or_else(|| self.rules.get(&rule)).cloned();
                if let Some(state) = state {
                    self.place_rule(maps, &state, extent)?;
                }
            }
        }
        if let Some(lookup) = wanted.lookup {
            self.change_lookup(maps, &lookup)?;
            self.lookup = lookup;
        }
        published.backends_changed += self.place_backends(maps, &lowered, local)?;
        for id in &wanted.rule_changes.gone {
            is_there(maps.rules.remove(&id.0), "RULES")?;
            // A later rule of that number begins at zero.
            is_there(maps.retired.remove(&id.0), "RETIRED")?;
            clear_reasons(maps, *id)?;
            published.rules_changed += 1;
            self.room.replace(self.extents.remove(id), None);
        }
        let mut ended = BTreeSet::new();
        for backend in wanted.backend_changes.gone.iter().filter_map(|id| self.backends.get(id)) {
            retire(maps, backend, wanted.rules.contains_key(&backend.rule))?;
            self.written.remove(&backend.id);
            published.backends_changed += 1;
            if backend.standing != Standing::Gone {
                ended.insert(backend.id);
            }
        }
        for id in &wanted.backend_changes.changed {
            let was_there = self.backends.get(id).is_some_and(|before| before.standing != Standing::Gone);
            if was_there && wanted.backends[id].standing == Standing::Gone {
                ended.insert(*id);
            }
        }
        self.is_whole = true;
        self.rules = wanted.rules;
        self.backends = wanted.backends;
        Ok((published, ended))
    }

    /// Writes the table of a rule where it shall be, then the rule that names it.
    fn place_rule(
        &mut self,
        maps: &mut Maps,
        rule: &RuleState,
        extent: Option<Extent>,
    ) -> Result<(), RedirectError> {
        let value = place_table(maps, rule, extent);
        let words: [u64; 9] = zerocopy::transmute!(value);
        maps.rules.insert(rule.id.0, words, 0).map_err(failed("RULES"))?;
        self.room.replace(self.extents.remove(&rule.id), extent);
        self.extents.extend(extent.map(|extent| (rule.id, extent)));
        Ok(())
    }

    /// Sets the bits of ports that are needed; those no longer needed stay until a sweep has seen that no connection uses
    /// them.
    fn open_ports(maps: &Maps, wanted: &Wanted) {
        // While listeners stay, only backends may need more.
        let needed = if wanted.lookup.is_some() {
            needed_ports(&wanted.rules, wanted.rules.values(), wanted.backends.values())
        } else {
            let changed = wanted.backend_changes.changed.iter().map(|id| &wanted.backends[id]);
            needed_ports(&wanted.rules, [], changed)
        };
        for (index, bits) in needed.iter().enumerate() {
            for (word, wanted) in bits.iter().enumerate() {
                let there = maps.ports.word(index, word);
                if there | wanted != there {
                    maps.ports.set_word(index, word, there | wanted);
                }
            }
        }
    }

    fn change_lookup(&self, maps: &mut Maps, wanted: &Lookup) -> Result<(), RedirectError> {
        // An exact listener wins over a network: put in first and taken out first of the two, neither leaves a moment without.
        for (key, rule) in &wanted.listeners {
            if self.lookup.listeners.get(key) != Some(rule) {
                let words: [u64; 3] = zerocopy::transmute!(*key);
                maps.listeners.insert(words, rule.0, 0).map_err(failed("LISTENERS"))?;
            }
        }
        for ((length, prefix), value) in &wanted.prefixes {
            if self.lookup.prefixes.get(&(*length, *prefix)) != Some(value) {
                let words: [u32; 64] = zerocopy::transmute!(*value);
                let key = Key::new(*length, zerocopy::transmute!(*prefix));
                maps.prefixes.insert(&key, words, 0).map_err(failed("PREFIXES"))?;
            }
        }
        for key in self.lookup.listeners.keys().filter(|key| !wanted.listeners.contains_key(key)) {
            let words: [u64; 3] = zerocopy::transmute!(*key);
            is_there(maps.listeners.remove(&words), "LISTENERS")?;
        }
        for (length, prefix) in self.lookup.prefixes.keys() {
            if !wanted.prefixes.contains_key(&(*length, *prefix)) {
                let key = Key::new(*length, zerocopy::transmute!(*prefix));
                is_there(maps.prefixes.remove(&key), "PREFIXES")?;
            }
        }
        Ok(())
    }
}

/// The room that the table of a rule needs.
fn need(rule: &RuleState) -> Need {
    let chunks = if is_uniform(&rule.table) { 0 } else { Room::needed(rule.table.len()) };
    Need { rule: rule.id, chunks }
}

/// Writes the table of a rule into its room. Returns the rule for the kernel.
fn place_table(maps: &Maps, rule: &RuleState, extent: Option<Extent>) -> RuleValue {
    let mut value = rule_value(rule);
    value.wished_length = u32::try_from(rule.table.len()).unwrap_or(u32::MAX);
    let Some(extent) = extent else {
        value.table_length = u32::from(!rule.table.is_empty());
        value.backend = rule.table.first().map_or(0, |backend| backend.0);
        return value;
    };
    value.table_length = value.wished_length;
    value.table_chunk = u32::try_from(extent.first).unwrap_or(0);
    for (place, backends) in rule.table.chunks(CHUNK_BACKENDS).enumerate() {
        for (word, pair) in backends.chunks(2).enumerate() {
            let low = u64::from(pair[0].0);
            // Nobody shall read what is no backend of the rule, where this is written over a longer table.
            let high = u64::from(pair.get(1).unwrap_or(&pair[0]).0);
            maps.tables.set_word(extent.first + place, word, low | high << 32);
        }
    }
    value
}

/// Ports that these listeners and backends need; `rules` are all that there are.
fn needed_ports<'a>(
    rules: &BTreeMap<RuleId, RuleState>,
    listening: impl IntoIterator<Item = &'a RuleState>,
    backends: impl IntoIterator<Item = &'a BackendState>,
) -> PortBits {
    let mut bits = no_ports();
    for rule in listening {
        let (forward, _) = bitmaps(rule.listener.transport);
        add_ports(&mut bits[forward as usize], rule.listener.ports);
    }
    for backend in backends {
        if let Some(rule) = rules.get(&backend.rule) {
            add_backend(&mut bits, rule, backend);
        }
    }
    bits
}

/// Which bitmaps a protocol has: of clients and of backends.
pub(super) const fn bitmaps(transport: Transport) -> (u32, u32) {
    match transport {
        Transport::Tcp => (PORTS_FORWARD_TCP, PORTS_REVERSE_TCP),
        Transport::Udp => (PORTS_FORWARD_UDP, PORTS_REVERSE_UDP),
    }
}

/// Adds the ports of a key of a connection.
#[expect(clippy::cast_possible_truncation, reason = "ports and protocol are parts of the word")]
pub(super) fn add_key(bits: &mut PortBits, key: &[u64; 5]) {
    let transport = super::words::transport((key[4] >> KEY_PROTOCOL) as u8);
    let (forward, reverse) = bitmaps(transport);
    if is_forward(key) {
        add_port(&mut bits[forward as usize], (key[4] >> 16) as u16);
    } else {
        add_port(&mut bits[reverse as usize], key[4] as u16);
    }
}

/// A backend's port is of interest both ways: a client may talk to it directly from a port that is taken.
fn add_backend(bits: &mut PortBits, rule: &RuleState, backend: &BackendState) {
    let (forward, reverse) = bitmaps(rule.listener.transport);
    let ports = match backend.address.port() {
        0 => rule.listener.ports,
        port => Ports::one(port),
    };
    add_ports(&mut bits[forward as usize], ports);
    add_ports(&mut bits[reverse as usize], ports);
}

/// Whether all entries of a table are the same, so that it need not be written.
fn is_uniform(table: &[BackendId]) -> bool {
    table.iter().all(|backend| Some(backend) == table.first())
}

fn read_table(maps: &Maps, value: &RuleValue) -> (Arc<[BackendId]>, Option<Extent>) {
    let length = value.table_length as usize;
    if length <= 1 {
        let wished = if length == 0 { 0 } else { value.wished_length as usize };
        return (std::iter::repeat_n(BackendId(value.backend), wished).collect(), None);
    }
    let first = value.table_chunk as usize;
    let extent = Extent { first, chunks: Room::needed(length) };
    let mut table = Vec::with_capacity(length);
    for chunk in first..first + extent.chunks {
        for word in maps.tables.read(chunk) {
            let [low, high] = halves(word);
            table.extend([BackendId(low), BackendId(high)]);
        }
    }
    table.truncate(length);
    (table.into(), Some(extent))
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
const fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

/// Removes a backend; what it carried goes to its rule, if that stays.
fn retire(maps: &mut Maps, backend: &BackendState, rule_stays: bool) -> Result<(), RedirectError> {
    let id = backend.id.0;
    maps.backends.set(id, [0; 4], 0).map_err(failed("BACKENDS"))?;
    let carried = sum_counts(maps, backend.id)?;
    if rule_stays {
        let before = found(maps.retired.get(&backend.rule.0, 0), "RETIRED")?.unwrap_or([0; 8]);
        let words: [u64; 8] = zerocopy::transmute!(carried);
        let sum: [u64; 8] = std::array::from_fn(|word| before[word] + words[word]);
        maps.retired.insert(backend.rule.0, sum, 0).map_err(failed("RETIRED"))?;
    }
    let none = aya::maps::PerCpuValues::try_from(vec![[0; 8]; cpus()])
        .map_err(|source| RedirectError::MapCall { name: "COUNTS", source })?;
    maps.counts.set(id, none, 0).map_err(failed("COUNTS"))
}

fn clear_reasons(maps: &mut Maps, rule: RuleId) -> Result<(), RedirectError> {
    let none = aya::maps::PerCpuValues::try_from(vec![[0; REASONS]; cpus()])
        .map_err(|source| RedirectError::MapCall { name: "REASONS", source })?;
    maps.reasons.set(rule.0, none, 0).map_err(failed("REASONS"))
}

fn cpus() -> usize {
    aya::util::nr_cpus().unwrap_or(1)
}

/// What a backend carried, on all CPUs.
pub(super) fn sum_counts(maps: &Maps, backend: BackendId) -> Result<BackendCounts, RedirectError> {
    let values = maps.counts.get(&backend.0, 0).map_err(failed("COUNTS"))?;
    let mut sum = [0_u64; 8];
    for value in values.iter() {
        for (word, count) in sum.iter_mut().zip(value) {
            *word += count;
        }
    }
    Ok(zerocopy::transmute!(sum))
}
