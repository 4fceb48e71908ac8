//! The table of connections, which may be two: while user space gives it another size, connections that were there before
//! are in the old one until they are moved.
//!
//! Nothing is put into the old one. What is found there is used where it is.

use aya_ebpf::bindings::BPF_NOEXIST;
use weir_common::redirect::ConnectionValue;

use crate::maps::{CONNECTIONS, MOVING, OLD_CONNECTIONS};

/// The error number of an entry that is there already.
pub(crate) const EEXIST: i32 = -17;

/// Whether there are two tables. The verifier knows, and drops what is not needed.
#[inline(always)]
fn are_moving() -> bool {
    MOVING.load() != 0
}

/// A direction of a connection.
#[inline(always)]
pub(crate) fn find(key: &[u64; 5]) -> Option<*mut ConnectionValue> {
    let found = CONNECTIONS.get_ptr_mut(key);
    if found.is_some() || !are_moving() {
        return found;
    }
    // Where it is in neither, it may have been moved just now: it is never in none.
    OLD_CONNECTIONS.get_ptr_mut(key).or_else(|| CONNECTIONS.get_ptr_mut(key))
}

/// Inserts an entry that is not there yet. Returns 0 or an error number.
#[inline(always)]
pub(crate) fn insert(key: &[u64; 5], value: &ConnectionValue) -> i32 {
    if are_moving() && OLD_CONNECTIONS.get_ptr(key).is_some() {
        return EEXIST;
    }
    match CONNECTIONS.insert(key, value, u64::from(BPF_NOEXIST)) {
        Ok(()) => 0,
        Err(error) => error,
    }
}

/// Writes an entry over one that is there. Returns 0 or an error number.
#[inline(always)]
pub(crate) fn replace(key: &[u64; 5], value: &ConnectionValue) -> i32 {
    if let Some(there) = CONNECTIONS.get_ptr_mut(key) {
        // SAFETY: a valid entry.
        unsafe { *there = *value };
        return 0;
    }
    // What is moved under way is not to be what was there before.
    remove(key);
    insert(key, value)
}

/// Removes an entry. Who is not there need not be removed.
#[inline(always)]
pub(crate) fn remove(key: &[u64; 5]) {
    if are_moving() {
        // First, so that it is not moved any more.
        let _gone = OLD_CONNECTIONS.remove(key);
    }
    let _gone = CONNECTIONS.remove(key);
}
