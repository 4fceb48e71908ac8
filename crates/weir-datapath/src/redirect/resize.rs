//! Another size of the table of connections, while packets come.
//!
//! A new table is pinned beside the old one. Programs that look into both take the place of those that are attached, first
//! those that see answers: from then on nothing is entered into the old table, and what is there is found. Then every
//! entry is copied, and taken out of the old table once no program is at work any more that had found it there. At the
//! end the new table's pin takes the place of the old one's. Wherever that is cut short, what is attached works with both
//! tables as they are, and the next start goes on; where the new one has become full meanwhile, what timed out in either
//! goes first.

use std::{fs, path::PathBuf};

use aya::maps::MapError;
use weir_common::redirect::ConnectionValue;

use super::{
    error::RedirectError,
    handle::Settings,
    load::{self, Tables},
    maps::{CONNECTION_WORDS, Connections, Maps, failed, found, is_there, open_connections},
    pins::Pins,
    places,
    publish::Mirror,
    stamp::Stamps,
    walk::{self, Sweep},
};
use crate::{bpf::batch::BatchWalk, grace::Grace, netns::Netns, object};

/// Entries that are copied before programs are waited for.
const MOVED_AT_ONCE: usize = 65_536;

type Walk = BatchWalk<5, CONNECTION_WORDS>;

/// Gives the table that is pinned the size that is wanted. Returns the one before, if it was another. Nothing is changed
/// if what is in use does not fit.
pub(super) fn resize(pins: &Pins, settings: &Settings, netns: &Netns) -> Result<Option<u32>, RedirectError> {
    if next(pins).exists() {
        // Another process has begun, and did not come to the end.
        let mut maps = Maps::open(&pins.maps)?;
        move_all(pins, settings, &mut maps, netns)?;
    }
    let mut maps = Maps::open(&pins.maps)?;
    let before = maps.capacity;
    let Some(wanted) = settings.capacity.map(|wanted| wanted.max(1)).filter(|wanted| *wanted != before)
    else {
        return Ok(None);
    };
    if used(&maps)? > most(wanted) {
        forget_what_timed_out(&mut maps)?;
        let used = used(&maps)?;
        if used > most(wanted) {
            return Err(RedirectError::Capacity { wanted, used });
        }
    }
    move_all(pins, settings, &mut maps, netns)?;
    Ok(Some(before))
}

/// Connections that there are.
fn used(maps: &Maps) -> Result<u64, RedirectError> {
    walk::entries(maps).map(|entries| entries.div_ceil(2))
}

/// Connections that may be moved to a table of that size: more begin meanwhile.
fn most(capacity: u32) -> u64 {
    u64::from(capacity - capacity / 8)
}

/// The pin of the table that connections are moved to.
pub(super) fn next(pins: &Pins) -> PathBuf {
    pins.maps.join("CONNECTIONS_NEXT")
}

fn forget_what_timed_out(maps: &mut Maps) -> Result<(), RedirectError> {
    let stamps = Stamps::new(&load::config(maps)?);
    let mirror = Mirror::read(maps)?;
    let mut sweep = Sweep::new(0);
    // Ports may be needed by connections in another table.
    sweep.is_stale = true;
    while !sweep.step(maps, &mirror, &stamps)?.is_whole {}
    Ok(())
}

/// Makes room in the new table, which became full while no process looked after it. The two directions of a connection may
/// be in different tables.
fn forget_in_both(pins: &Pins, maps: &mut Maps, new: &mut Connections) -> Result<(), RedirectError> {
    // Of entries that are in both, programs stamp the new one alone.
    let mut walk = Walk::new(MOVED_AT_ONCE);
    loop {
        let (keys, is_end) = next_keys(&mut walk, maps)?;
        for key in &keys {
            if read(new, key)?.is_some() {
                take_out(&mut maps.connections, new, key)?;
            }
        }
        if is_end {
            break;
        }
    }
    let next = next(pins);
    let mut beside = Maps::open_with(&pins.maps, &next)?;
    beside.beside = Some(open_connections(&pins.maps.join("CONNECTIONS"))?.0);
    forget_what_timed_out(&mut beside)?;
    maps.beside = Some(open_connections(&next)?.0);
    let outcome = forget_what_timed_out(maps);
    maps.beside = None;
    outcome
}

/// Puts programs in place that look into both tables, and moves what is in the old one.
fn move_all(pins: &Pins, settings: &Settings, maps: &mut Maps, netns: &Netns) -> Result<(), RedirectError> {
    let next = next(pins);
    let was_begun = next.exists();
    let mut ebpf = load::load(pins, settings, Tables::Moving).inspect_err(|_| {
        if !was_begun {
            // No program knows it.
            fs::remove_file(&next).ok();
        }
    })?;
    places::replace_programs(&mut ebpf, pins, maps, netns)?;
    let mut grace = Grace::new(object::take(&mut ebpf, "GRACE")?).map_err(failed("GRACE"))?;
    // Programs that enter connections into the old table are at their end.
    grace.wait().map_err(failed("GRACE"))?;
    let (mut new, entries) = open_connections(&next)?;
    let mut walk = Walk::new(MOVED_AT_ONCE);
    loop {
        let (keys, is_end) = next_keys(&mut walk, maps)?;
        for key in &keys {
            if !copy(&maps.connections, &mut new, key)? {
                grace.wait().map_err(failed("GRACE"))?;
                forget_in_both(pins, maps, &mut new)?;
                if !copy(&maps.connections, &mut new, key)? {
                    return Err(RedirectError::Full { capacity: entries / 2 });
                }
            }
        }
        if !keys.is_empty() {
            // Who looks now finds the new one first.
            grace.wait().map_err(failed("GRACE"))?;
        }
        for key in &keys {
            take_out(&mut maps.connections, &mut new, key)?;
        }
        if is_end {
            break;
        }
    }
    fs::rename(&next, pins.maps.join("CONNECTIONS")).map_err(|source| RedirectError::Pin {
        path: next,
        remedy: "it cannot take the place of the old table",
        source,
    })
}

/// Keys of the old table, and whether these are the last ones.
fn next_keys(walk: &mut Walk, maps: &Maps) -> Result<(Vec<[u64; 5]>, bool), RedirectError> {
    let mut keys = Vec::new();
    let step = walk.step(maps.connections_fd(), |key, _| keys.push(*key));
    let (_, is_end) = step.map_err(|source| RedirectError::MapCall { name: "CONNECTIONS", source })?;
    Ok((keys, is_end))
}

/// Puts an entry into the new table as well. `false` if that is full.
fn copy(old: &Connections, new: &mut Connections, key: &[u64; 5]) -> Result<bool, RedirectError> {
    const BPF_NOEXIST: u64 = 1;
    let Some(value) = read(old, key)? else { return Ok(true) };
    match new.insert(key, words(value), BPF_NOEXIST) {
        // A program has made it anew, or somebody who did not come to the end has copied it.
        Err(error) if errno(&error) == Some(libc::EEXIST) => return Ok(true),
        Err(error) if errno(&error) == Some(libc::E2BIG) => return Ok(false),
        outcome => outcome.map_err(failed("CONNECTIONS"))?,
    }
    // A program that ends a connection takes it out of the old table first: perhaps before it was in the new one.
    let is_over = read(old, key)?.is_none();
    if is_over && read(new, key)?.is_some_and(|there| is_same(&there, &value)) {
        is_there(new.remove(key), "CONNECTIONS")?;
    }
    Ok(true)
}

/// Takes an entry out of the old table. What programs have noted there since it was copied goes along.
fn take_out(old: &mut Connections, new: &mut Connections, key: &[u64; 5]) -> Result<(), RedirectError> {
    const BPF_EXIST: u64 = 2;
    let Some(late) = read(old, key)? else { return Ok(()) };
    if let Some(both) = read(new, key)?.and_then(|there| joined(&there, &late)) {
        is_there(new.insert(key, words(both), BPF_EXIST), "CONNECTIONS")?;
    }
    is_there(old.remove(key), "CONNECTIONS").map(drop)
}

/// What both entries of a connection know; `None` if `there` knows all of it.
fn joined(there: &ConnectionValue, late: &ConnectionValue) -> Option<ConnectionValue> {
    if !is_same(there, late) {
        return None;
    }
    // Stamps are truncated.
    let is_later = (1..=u32::MAX / 2).contains(&late.seen.wrapping_sub(there.seen));
    let newest = if is_later { late } else { there };
    let both = ConnectionValue { flags: there.flags | late.flags, ..*newest };
    (both != *there).then_some(both)
}

/// Whether two entries of one key are of the same connection.
fn is_same(one: &ConnectionValue, other: &ConnectionValue) -> bool {
    (one.created, one.address, one.ports) == (other.created, other.address, other.ports)
}

fn read(map: &Connections, key: &[u64; 5]) -> Result<Option<ConnectionValue>, RedirectError> {
    Ok(found(map.get(key, 0), "CONNECTIONS")?.map(|words| zerocopy::transmute!(words)))
}

fn words(value: ConnectionValue) -> [u64; CONNECTION_WORDS] {
    zerocopy::transmute!(value)
}

fn errno(error: &MapError) -> Option<i32> {
    let MapError::SyscallError(error) = error else { return None };
    error.io_error.raw_os_error()
}

#[cfg(test)]
mod tests {
    use weir_common::redirect::{CONNECTION_FIN, CONNECTION_SEEN};

    use super::*;

    const SEEN: u8 = CONNECTION_SEEN;
    const BOTH: u8 = CONNECTION_SEEN | CONNECTION_FIN;

    #[test]
    fn what_is_noted_in_either_entry_is_kept() {
        let entry = |flags, seen, interface| ConnectionValue {
            address: [1, 2],
            created: 5,
            flags,
            seen,
            interface,
            ..ConnectionValue::default()
        };
        for (case, there, late, expected) in [
            ("the same", entry(SEEN, 10, 1), entry(SEEN, 10, 1), None),
            ("an end", entry(SEEN, 10, 1), entry(BOTH, 10, 1), Some(entry(BOTH, 10, 1))),
            ("a later packet", entry(BOTH, 10, 1), entry(SEEN, 11, 2), Some(entry(BOTH, 11, 2))),
            ("an earlier packet", entry(BOTH, 10, 1), entry(SEEN, 9, 2), None),
            ("over the edge", entry(SEEN, u32::MAX, 1), entry(SEEN, 3, 1), Some(entry(SEEN, 3, 1))),
        ] {
            assert_eq!(joined(&there, &late), expected, "{case}");
        }
        let other = ConnectionValue { created: 6, ..entry(BOTH, 20, 2) };
        assert_eq!(joined(&entry(SEEN, 10, 1), &other), None, "another connection");
    }
}
