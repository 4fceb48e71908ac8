//! Kills a process that writes, again and again, and looks at what it left.
//!
//! The process is this test program, started anew with the one test below that only works when told where.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use super::{Seen, place, sums};
use crate::store::{EmbeddedStore, Store as _, StoreConfig, conformance::Sample};

const KILLS: u64 = 50;
const DIRECTORY: &str = "WEIR_TEST_STORE_CRASH_DIRECTORY";
const FIRST_TICK: &str = "WEIR_TEST_STORE_CRASH_FIRST_TICK";

/// Segments of a few ticks, so that every step of writing gets its share of kills.
const CONFIG: StoreConfig = StoreConfig {
    flows_age: std::time::Duration::MAX,
    flows_bytes: u64::MAX,
    ten_seconds_age: std::time::Duration::MAX,
    minute_age: std::time::Duration::MAX,
    hour_age: std::time::Duration::MAX,
    segment_rows: 60,
    segment_age: std::time::Duration::MAX,
};

/// Records of a tick, the same in both processes.
fn records_of(tick: u64) -> (weir_flow::Tick, Vec<weir_flow::Record>) {
    Sample::seeded(tick.wrapping_mul(0x9e37_79b9_7f4a_7c15)).tick(tick)
}

#[test]
fn the_one_that_is_killed() {
    let (Some(directory), Some(first)) = (env::var_os(DIRECTORY), env::var_os(FIRST_TICK)) else { return };
    let first: u64 = first.to_str().and_then(|text| text.parse().ok()).expect("a number");
    let store = EmbeddedStore::open(Path::new(&directory), CONFIG).expect("the store opens");
    let mut out = std::io::stdout();
    for tick in first.. {
        let (time, records) = records_of(tick);
        store.append(&records, &time).expect("appending works");
        writeln!(out, "\nkept {tick}").and_then(|()| out.flush()).expect("the parent reads");
    }
}

fn start(directory: &Path, first: u64) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(env::current_exe().expect("this program has a path"))
        .args(["--exact", "store::embedded::tests::crash::the_one_that_is_killed", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(FIRST_TICK, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts again");
    let out = child.stdout.take().expect("it is piped");
    (child, BufReader::new(out))
}

/// Lets the child keep so many ticks, kills it, and gives back the last tick that it said it had kept.
fn kill_after(directory: &Path, first: u64, ticks: u64) -> Option<u64> {
    let (mut child, out) = start(directory, first);
    let mut last = None;
    let mut kept =
        out.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix("kept ")?.parse().ok());
    if ticks > 0 {
        last = kept.nth(usize::try_from(ticks - 1).expect("a small number"));
        assert!(last.is_some(), "the child ended by itself");
    }
    child.kill().expect("it can be killed");
    last = kept.last().or(last);
    child.wait().expect("it is dead");
    last
}

#[test]
fn fifty_kills_lose_nothing_that_was_appended() {
    let place = place();
    // Of the ticks before `next`, everything is there.
    let mut next = 0;
    let mut there: Seen = Vec::new();
    for kill in 0..KILLS {
        let last = kill_after(place.path(), next, kill * 7 % 31);
        let store = EmbeddedStore::open(place.path(), CONFIG).expect("it opens after a kill");
        let (raw, levels) = sums(&store);
        let least = last.map_or(next, |last| last + 1);
        let mut expected = there.clone();
        for tick in next..least {
            add(&mut expected, tick);
        }
        // The tick that was being appended may be there or not.
        next = least;
        if raw != expected {
            add(&mut expected, least);
            assert_eq!(raw, expected, "kill {kill}: ticks before {least} were kept");
            next += 1;
        }
        for level in levels {
            assert_eq!(level, raw, "kill {kill}");
        }
        assert_eq!(store.damaged().expect("it lists"), Vec::<String>::new(), "kill {kill}");
        there = expected;
    }
    assert!(next > KILLS);
}

fn add(seen: &mut Seen, tick: u64) {
    let (_, records) = records_of(tick);
    for (role, sums) in weir_flow::group::by_role(&records.iter().collect::<Vec<_>>()) {
        match seen.iter_mut().find(|(candidate, ..)| *candidate == role) {
            Some((_, count, records)) => {
                *count += sums.both();
                *records += sums.flows;
            }
            None => seen.push((role, sums.both(), sums.flows)),
        }
    }
}
