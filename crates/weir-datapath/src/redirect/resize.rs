//! Another size of the table of connections, while packets come.
//!
//! A new table is pinned beside the old one. Programs that look into both take the place of those that are attached, first
//! those that see answers: from then on nothing is entered into the old table, and what is there is found. Then every
//! entry is moved, and the new table's pin takes the place of the old one's. Wherever that is cut short, what is attached
//! works with both tables as they are, and the next start goes on; where the new one has become full meanwhile, what
//! timed out in either goes first.

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
    walk::{self, BATCH, Sweep},
};
use crate::{bpf::batch::BatchWalk, grace::Grace, netns::Netns, object};

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
    let mut walk = BatchWalk::<5, CONNECTION_WORDS>::new(BATCH);
    loop {
        let mut keys = Vec::with_capacity(BATCH);
        let (_, is_end) = walk
            .step(maps.connections_fd(), |key, _| keys.push(*key))
            .map_err(|source| RedirectError::MapCall { name: "CONNECTIONS", source })?;
        for key in &keys {
            let moved = move_one(maps, &mut new, key, entries / 2);
            if matches!(moved, Err(RedirectError::Full { .. })) {
                // Nobody has swept while no process was there.
                let mut beside = Maps::open_with(&pins.maps, &next)?;
                forget_what_timed_out(&mut beside)?;
                forget_what_timed_out(maps)?;
                move_one(maps, &mut new, key, entries / 2)?;
            }
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

/// Moves an entry: it is in one table all the time.
fn move_one(
    maps: &mut Maps,
    new: &mut Connections,
    key: &[u64; 5],
    capacity: u32,
) -> Result<(), RedirectError> {
    const BPF_NOEXIST: u64 = 1;
    let Some(value) = maps.lookup(key)? else { return Ok(()) };
    let words: [u64; CONNECTION_WORDS] = zerocopy::transmute!(value);
    match new.insert(key, words, BPF_NOEXIST) {
        // A program has made it anew.
        Err(error) if errno(&error) == Some(libc::EEXIST) => {}
        Err(error) if errno(&error) == Some(libc::E2BIG) => return Err(RedirectError::Full { capacity }),
        outcome => outcome.map_err(failed("CONNECTIONS"))?,
    }
    // A program that had found the old one may have noted an end there since. All others find the new one first.
    if let Some(late) = maps.lookup(key)?
        && late.flags != value.flags
        && let Some(words) = found(new.get(key, 0), "CONNECTIONS")?
    {
        let there: ConnectionValue = zerocopy::transmute!(words);
        let both = ConnectionValue { flags: there.flags | late.flags, ..there };
        let words: [u64; CONNECTION_WORDS] = zerocopy::transmute!(both);
        new.insert(key, words, 0).map_err(failed("CONNECTIONS"))?;
    }
    if maps.remove(key)? {
        return Ok(());
    }
    // A program ended the connection meanwhile.
    let there = found(new.get(key, 0), "CONNECTIONS")?;
    let is_same = there.is_some_and(|words| {
        let there: ConnectionValue = zerocopy::transmute!(words);
        (there.created, there.address, there.ports) == (value.created, value.address, value.ports)
    });
    if is_same {
        is_there(new.remove(key), "CONNECTIONS")?;
    }
    Ok(())
}

fn errno(error: &MapError) -> Option<i32> {
    let MapError::SyscallError(error) = error else { return None };
    error.io_error.raw_os_error()
}
