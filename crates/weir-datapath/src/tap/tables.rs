//! Rules in the kernel: two sets, of which one is in force while the other is written.

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, lpm_trie::Key},
};
use weir_common::tap::{CGROUP, CommandKey, Control, NetworkKey, NumberKey, PID, RuleSet};
use zerocopy::{IntoBytes as _, transmute};

use super::{
    compile::{Compiled, octets},
    error::TapError,
};
use crate::{grace::Grace, object::take};

/// Words of a set.
const SET_WORDS: usize = size_of::<RuleSet>() / 8;

/// Bits of a [`NetworkKey`] in front of the address.
const SET_BITS: u32 = 64;

/// What leads to the rules of a set.
#[derive(Default)]
struct Keys {
    numbers: Vec<[u64; 2]>,
    commands: Vec<[u64; 3]>,
    networks: Vec<Network>,
}

#[derive(Clone, Copy)]
struct Network {
    bits: u32,
    data: [u8; 24],
}

impl Network {
    fn key(&self) -> Key<[u8; 24]> {
        Key::new(self.bits, self.data)
    }
}

/// The maps.
pub(super) struct Tables {
    control: Array<MapData, [u32; 2]>,
    sets: Array<MapData, [u64; SET_WORDS]>,
    numbers: HashMap<MapData, [u64; 2], u64>,
    commands: HashMap<MapData, [u64; 3], u64>,
    networks: LpmTrie<MapData, [u8; 24], u64>,
    grace: Grace,
    /// What is in force.
    keys: Keys,
    current: Control,
}

impl Tables {
    /// Takes over the maps.
    pub(super) fn new(object: &mut Ebpf) -> Result<Self, TapError> {
        Ok(Self {
            control: map(object, "CONTROL")?,
            sets: map(object, "RULE_SETS")?,
            numbers: map(object, "NUMBERS")?,
            commands: map(object, "COMMANDS")?,
            networks: map(object, "NETWORKS")?,
            grace: Grace::new(take(object, "GRACE")?).map_err(named("GRACE"))?,
            keys: Keys::default(),
            current: Control::default(),
        })
    }

    /// Puts rules in force, or none at all if there are none.
    pub(super) fn publish(&mut self, compiled: &Compiled, is_any: bool) -> Result<(), TapError> {
        let set = self.current.set ^ 1;
        let mut keys = Keys::default();
        if let Err(error) = self.write(compiled, set, &mut keys) {
            self.forget(&keys);
            return Err(error);
        }
        // Numbers of generations are never used twice: verdicts are kept in sockets by them.
        let generation = self.current.generation.wrapping_add(1).max(1);
        let in_force = if is_any { generation } else { 0 };
        if let Err(source) = self.control.set(0, [in_force, set], 0) {
            self.forget(&keys);
            return Err(TapError::Map { name: "CONTROL", source });
        }
        self.current = Control { generation, set };
        let before = std::mem::replace(&mut self.keys, keys);
        // Calls that are being judged by the rules from before come to their end first.
        self.settle()?;
        self.forget(&before);
        Ok(())
    }

    /// Waits until no program runs any more that was running.
    pub(super) fn settle(&mut self) -> Result<(), TapError> {
        self.grace.wait().map_err(named("GRACE"))
    }

    fn write(&mut self, compiled: &Compiled, set: u32, keys: &mut Keys) -> Result<(), TapError> {
        for (kind, masks) in [(PID, &compiled.pids), (CGROUP, &compiled.cgroups)] {
            for (&number, &mask) in masks {
                let key: [u64; 2] = transmute!(NumberKey { number, set, kind });
                self.numbers.insert(key, mask, 0).map_err(named("NUMBERS"))?;
                keys.numbers.push(key);
            }
        }
        for (&command, &mask) in &compiled.commands {
            let key: [u64; 3] = transmute!(CommandKey { command: transmute!(command), set: set.into() });
            self.commands.insert(key, mask, 0).map_err(named("COMMANDS"))?;
            keys.commands.push(key);
        }
        for (&(address, length), &mask) in &compiled.networks {
            let data: [u8; 24] =
                transmute!(NetworkKey { set: u64::from(set).to_ne_bytes(), address: octets(address) });
            let network = Network { bits: SET_BITS + u32::from(length), data };
            self.networks.insert(&network.key(), mask, 0).map_err(named("NETWORKS"))?;
            keys.networks.push(network);
        }
        let mut words = [0; SET_WORDS];
        words.as_mut_bytes().copy_from_slice(compiled.set.as_bytes());
        self.sets.set(set, words, 0).map_err(named("RULE_SETS"))
    }

    /// Removes what leads to rules that are not in force. What cannot be removed does no harm: its set is not asked for, and
    /// is written anew before it is.
    fn forget(&mut self, keys: &Keys) {
        for key in &keys.numbers {
            let _kept = self.numbers.remove(key);
        }
        for key in &keys.commands {
            let _kept = self.commands.remove(key);
        }
        for network in &keys.networks {
            let _kept = self.networks.remove(&network.key());
        }
    }
}

/// Takes a map of a kind out of the object.
pub(super) fn map<T: TryFrom<Map, Error = MapError>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<T, TapError> {
    T::try_from(take(object, name)?).map_err(named(name))
}

/// Says which map it was.
pub(super) fn named(name: &'static str) -> impl Fn(MapError) -> TapError {
    move |source| TapError::Map { name, source }
}

const _: () = {
    const fn is_pod<T: Pod>() {}
    is_pod::<[u64; SET_WORDS]>();
    assert!(size_of::<RuleSet>().is_multiple_of(8));
};
