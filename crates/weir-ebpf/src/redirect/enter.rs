//! The two entries of a new connection.
//!
//! The entry of the answers is made first and never over another one: that is how it is found out that the client's port
//! is taken, by another connection of its to the same backend.

use weir_common::redirect::{
    ACTION_PASS, CONNECTION_CLOSED, CONNECTION_DIRECT, FIRST_SPARE_PORT, PORTS_ALWAYS, PORTS_PRESERVE,
    Reason, pair_key,
};

use crate::{
    connections::{self, EEXIST},
    count,
    fast::is_there_of,
    keys,
    maps::{Scratch, forget_cached, scratch},
};

/// Both entries are there.
pub(crate) const ENTERED: u64 = 0;
/// The packet passes as it is.
pub(crate) const PASS: u64 = 1;
/// It is dropped.
pub(crate) const DROP: u64 = 2;

/// Ports that are tried.
const ATTEMPTS: u32 = 32;

/// How many spare ports there are.
const SPARE_PORTS: u32 = 65_536 - FIRST_SPARE_PORT as u32;

/// Enters the connection whose key and value are in the scratch memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_enter() -> u64 {
    let Some(scratch) = scratch() else { return PASS };
    let is_direct = scratch.value.flags & CONNECTION_DIRECT != 0;
    let policy = if is_direct { PORTS_ALWAYS } else { scratch.rule.port_policy };
    let rule = scratch.value.rule;
    if !is_direct && !is_there_of(&scratch.value) {
        // Its number became another one's while it was read; the client asks again.
        count::reason(rule, Reason::Vanished);
        return DROP;
    }
    let own = scratch.value.ports & 0xffff;
    let mut outcome = EEXIST;
    if policy != PORTS_ALWAYS {
        outcome = answer(scratch);
    }
    if outcome == EEXIST && policy != PORTS_PRESERVE {
        let start = spread(&scratch.key);
        for attempt in 0..ATTEMPTS {
            // Steps of a prime: ports that clients chose in a row do not meet the same ones in a row.
            let offset = (start + attempt * 397) % SPARE_PORTS;
            scratch.value.ports = scratch.value.ports & 0xffff_0000 | (u32::from(FIRST_SPARE_PORT) + offset);
            outcome = answer(scratch);
            if outcome != EEXIST {
                break;
            }
        }
        if outcome == 0 && policy != PORTS_ALWAYS {
            count::reason(rule, Reason::PortChanged);
        }
    }
    if outcome == EEXIST {
        count::reason(rule, Reason::NoPort);
        scratch.value.ports = scratch.value.ports & 0xffff_0000 | own;
        return DROP;
    }
    if outcome == 0 {
        outcome = connections::insert(&scratch.key, &scratch.value);
        if outcome == 0 {
            count::opened(scratch.value.backend);
            return ENTERED;
        }
        if outcome == EEXIST {
            return theirs(scratch);
        }
        connections::remove(&scratch.pair_key);
    }
    if is_direct || scratch.rule.on_full == ACTION_PASS {
        count::reason(rule, Reason::FullPassed);
        return PASS;
    }
    count::reason(rule, Reason::FullDropped);
    DROP
}

/// Inserts the entry of the answers for the ports in the value. Returns 0 or an error number.
#[inline(always)]
fn answer(scratch: &mut Scratch) -> i32 {
    scratch.pair_key = pair_key(&scratch.key, &scratch.value);
    keys::pair_value(&scratch.key, &scratch.value, &mut scratch.pair);
    let outcome = connections::insert(&scratch.pair_key, &scratch.pair);
    if outcome != EEXIST {
        return outcome;
    }
    let Some(there) = connections::find(&scratch.pair_key) else { return EEXIST };
    // SAFETY: a valid entry.
    let there = unsafe { &*there };
    let is_own = there.ports == scratch.pair.ports
        && there.address[0] == scratch.pair.address[0]
        && there.address[1] == scratch.pair.address[1];
    if is_own || there.flags & CONNECTION_CLOSED != 0 {
        // Left from an earlier connection, or another packet of this one on another CPU.
        let outcome = connections::replace(&scratch.pair_key, &scratch.pair);
        forget_cached();
        return outcome;
    }
    EEXIST
}

/// Another CPU entered the same connection at the same time: what it chose counts.
#[inline(always)]
fn theirs(scratch: &mut Scratch) -> u64 {
    let Some(there) = connections::find(&scratch.key) else { return PASS };
    // SAFETY: a valid entry.
    let there = unsafe { *there };
    let is_same = there.ports == scratch.value.ports
        && there.address[0] == scratch.value.address[0]
        && there.address[1] == scratch.value.address[1];
    if !is_same {
        connections::remove(&scratch.pair_key);
        scratch.value = there;
    }
    ENTERED
}

/// A number that differs between connections.
#[inline(always)]
fn spread(key: &[u64; 5]) -> u32 {
    let mut hash = key[1] ^ key[3].rotate_left(32) ^ key[4];
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> 33) as u32 % SPARE_PORTS
}
