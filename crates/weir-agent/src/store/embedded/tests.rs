mod crash;

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;
use weir_flow::{Count, Role, Wall, field::Field, filter::Filter, group::by_role};

use super::*;
use crate::store::{
    Cut, Limits, Precision, Range, Rows, Traffic,
    conformance::{self, BEGIN, Sample, Times, all, append},
};

fn place() -> TempDir {
    tempfile::tempdir().expect("there is room")
}

/// Segments of a few rows, so that tests see many.
fn small() -> StoreConfig {
    StoreConfig { segment_rows: 40, ..StoreConfig::default() }
}

/// A store with the directory that it lies in.
struct Placed {
    store: EmbeddedStore,
    _place: TempDir,
}

impl Store for Placed {
    fn append(&self, records: &[Record], tick: &Tick) -> Result<(), StoreError> {
        self.store.append(records, tick)
    }

    fn edges(&self, query: &EdgeQuery) -> Result<Edges, StoreError> {
        self.store.edges(query)
    }

    fn series(&self, query: &SeriesQuery) -> Result<Series, StoreError> {
        self.store.series(query)
    }

    fn flows(&self, query: &FlowQuery) -> Result<Flows, StoreError> {
        self.store.flows(query)
    }

    fn hints(&self, query: &HintQuery) -> Result<Hints, StoreError> {
        self.store.hints(query)
    }
}

#[test]
fn the_embedded_store_conforms_whatever_the_size_of_its_segments() {
    for config in [small(), StoreConfig::default()] {
        conformance::check(Times::Nanoseconds, &|| {
            let place = place();
            let store = EmbeddedStore::open(place.path(), config).expect("it opens");
            Box::new(Placed { store, _place: place })
        });
    }
}

/// What each role saw: both directions, and the number of records.
pub(super) type Seen = Vec<(Role, Count, u64)>;

/// Σ of the raw flows, by role, and Σ of each level of sums with all sightings.
pub(super) fn sums(store: &EmbeddedStore) -> (Seen, Vec<Seen>) {
    let limits = Limits { rows: 100_000, ..Limits::default() };
    let group_by = vec![Field::by_name("network.transport").expect("there is such a field")];
    let query = FlowQuery { range: all(), filter: Filter::default(), group_by, limits };
    let totals = store.flows(&query).expect("an answer").totals;
    let raw = totals.into_iter().map(|(role, sums)| (role, sums.both(), sums.flows)).collect();
    let levels = Level::ALL.map(|level| {
        let mut found = Role::ALL.map(|role| (role, Traffic::default()));
        store
            .every_sum(all(), level, &mut |key, traffic| {
                for (_, sum) in found.iter_mut().filter(|(role, _)| *role == key.edge.role) {
                    *sum += *traffic;
                }
            })
            .expect("the database answers");
        found
            .into_iter()
            .filter(|(_, sum)| sum.records > 0)
            .map(|(role, sum)| (role, sum.forward + sum.reverse, sum.records))
            .collect()
    });
    (raw, levels.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn raw_flows_and_every_level_of_sums_have_what_was_appended(
        seed in any::<u64>(),
        count in 1..150_u64,
        segment_rows in prop::sample::select(vec![1_usize, 30, 200, 65_536]),
        reopened_at in 0..150_usize,
    ) {
        let place = place();
        let config = StoreConfig { segment_rows, ..StoreConfig::default() };
        let mut ticks = Sample::seeded(seed).ticks(count);
        ticks[0].1.extend(Sample::seen_four_times(1_000));
        let mut store = EmbeddedStore::open(place.path(), config).unwrap();
        for (index, (tick, records)) in ticks.iter().enumerate() {
            if index == reopened_at {
                drop(store);
                store = EmbeddedStore::open(place.path(), config).unwrap();
            }
            store.append(records, tick).unwrap();
        }
        let records: Vec<&Record> = ticks.iter().flat_map(|(_, records)| records).collect();
        let expected: Vec<_> =
            by_role(&records).into_iter().map(|(role, sums)| (role, sums.both(), sums.flows)).collect();
        let (raw, levels) = sums(&store);
        prop_assert_eq!(&raw, &expected);
        for level in levels {
            prop_assert_eq!(&level, &expected);
        }
        // Somebody who reads the files beside the writer sees the same.
        let reader = EmbeddedStore::open_read_only(place.path()).unwrap();
        prop_assert_eq!(sums(&reader), sums(&store));
        prop_assert_eq!(store.trouble(), None);
    }
}

#[test]
fn a_second_writer_is_refused_while_a_reader_is_not() {
    let place = place();
    let store = EmbeddedStore::open(place.path(), small()).unwrap();
    append(&store, &Sample::default().ticks(5));
    let refused = EmbeddedStore::open(place.path(), small()).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("is in use by process"), "{refused}");
    let reader = EmbeddedStore::open_read_only(place.path()).unwrap();
    assert!(matches!(reader.append(&[], &Tick::default()), Err(StoreError::ReadOnly { .. })));
    drop(store);
    EmbeddedStore::open(place.path(), small()).unwrap();
}

#[test]
fn a_directory_without_a_store_is_said_to_be_none() {
    let place = place();
    for path in [place.path().to_owned(), place.path().join("missing")] {
        let refused = EmbeddedStore::open_read_only(&path).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("no store in"), "{refused}");
    }
}

fn files(place: &TempDir, part: &str) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(place.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().contains(part))
        .collect();
    files.sort();
    files
}

#[test]
fn a_torn_log_loses_its_last_frame_and_nothing_else() {
    let ticks = Sample::default().ticks(20);
    let whole = |count: usize| {
        by_role(&ticks[..count].iter().flat_map(|(_, records)| records).collect::<Vec<_>>())
            .iter()
            .map(|(_, sums)| sums.flows)
            .sum::<u64>()
    };
    for cut in [1_u64, 7, 8, 9, 100] {
        let place = place();
        let store = EmbeddedStore::open(place.path(), StoreConfig::default()).unwrap();
        append(&store, &ticks);
        drop(store);
        let [log] = files(&place, "log-").try_into().unwrap();
        let length = fs::metadata(&log).unwrap().len();
        fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(length - cut).unwrap();
        let store = EmbeddedStore::open(place.path(), StoreConfig::default()).unwrap();
        let (raw, _) = sums(&store);
        let records: u64 = raw.iter().map(|(_, _, records)| records).sum();
        assert!((whole(18)..whole(20)).contains(&records), "{records} of {} after {cut} bytes", whole(20));
        assert_eq!(store.damaged().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_torn_segment_is_set_aside_and_named_and_the_rest_is_there() {
    let place = place();
    let store = EmbeddedStore::open(place.path(), small()).unwrap();
    append(&store, &Sample::default().ticks(60));
    drop(store);
    let segments = files(&place, ".parquet");
    assert!(segments.len() > 3);
    let torn = &segments[1];
    let length = fs::metadata(torn).unwrap().len();
    fs::OpenOptions::new().write(true).open(torn).unwrap().set_len(length / 2).unwrap();
    let store = EmbeddedStore::open(place.path(), small()).unwrap();
    let name = format!("{}.damaged", torn.file_name().unwrap().to_string_lossy());
    assert_eq!(store.damaged().unwrap(), std::slice::from_ref(&name));
    let query = FlowQuery {
        range: all(),
        filter: Filter::default(),
        group_by: Vec::new(),
        limits: Limits { rows: 10_000, ..Limits::default() },
    };
    let answer = store.flows(&query).unwrap();
    assert_eq!(answer.coverage.cuts, [Cut::Damaged(name)]);
    let Rows::Flows(records) = answer.rows else { panic!("flows were asked for") };
    assert!(!records.is_empty());
}

#[test]
fn files_of_another_format_are_set_aside_and_named_and_never_misread() {
    let place = place();
    let store = EmbeddedStore::open(place.path(), small()).unwrap();
    append(&store, &Sample::default().ticks(60));
    let (before, _) = sums(&store);
    drop(store);
    let replace = |path: &Path, from: &[u8], to: &[u8]| {
        let mut bytes = fs::read(path).unwrap();
        let at = bytes.windows(from.len()).rposition(|window| window == from).expect("it says its format");
        bytes[at..at + to.len()].copy_from_slice(to);
        fs::write(path, bytes).unwrap();
    };
    let segment = files(&place, ".parquet")[1].clone();
    // The name of the entry, the type of its value and the length of that; then the value.
    replace(&segment, b"weir.format\x18\x013", b"weir.format\x18\x012");
    let [log] = files(&place, "log-").try_into().unwrap();
    replace(&log, b"weirlog3", b"weirlog2");

    // Somebody who only reads does not take them for its own either.
    let reader = EmbeddedStore::open_read_only(place.path()).unwrap();
    let count = |seen: &Seen| seen.iter().map(|(_, _, records)| records).sum::<u64>();
    assert!(count(&sums(&reader).0) < count(&before));
    let store = EmbeddedStore::open(place.path(), small()).unwrap();
    let name = |path: &Path| format!("{}.damaged", path.file_name().unwrap().to_string_lossy());
    assert_eq!(store.damaged().unwrap(), [name(&segment), name(&log)]);
    assert!(count(&sums(&store).0) < count(&before));
    append(&store, &Sample::default().ticks(1));
}

#[test]
fn a_segment_with_garbage_inside_is_named_and_the_rest_is_read() {
    let place = place();
    let store = EmbeddedStore::open(place.path(), small()).unwrap();
    append(&store, &Sample::default().ticks(60));
    let garbled = &files(&place, ".parquet")[1];
    let mut bytes = fs::read(garbled).unwrap();
    let middle = bytes.len() / 2;
    bytes[4..middle].fill(0xa5);
    fs::write(garbled, bytes).unwrap();
    let query = FlowQuery {
        range: all(),
        filter: Filter::default(),
        group_by: Vec::new(),
        limits: Limits { rows: 10_000, ..Limits::default() },
    };
    let answer = store.flows(&query).unwrap();
    assert_eq!(
        answer.coverage.cuts,
        [Cut::Damaged(garbled.file_name().unwrap().to_string_lossy().into_owned())]
    );
}

#[test]
fn a_database_that_is_none_is_set_aside_and_flows_stay() {
    let place = place();
    let store = EmbeddedStore::open(place.path(), small()).unwrap();
    append(&store, &Sample::default().ticks(20));
    let before = sums(&store).0;
    drop(store);
    for suffix in ["", "-wal", "-shm"] {
        fs::write(place.path().join(format!("rollups.sqlite{suffix}")), "this is no database").unwrap();
    }
    let store = EmbeddedStore::open(place.path(), small()).unwrap();
    assert_eq!(sums(&store).0, before);
    assert_eq!(store.damaged().unwrap(), ["rollups.sqlite.damaged"]);
    append(&store, &Sample::default().ticks(1));
}

#[test]
fn what_is_too_old_or_too_much_is_removed() {
    let place = place();
    let config = StoreConfig { flows_age: Duration::from_secs(30), ..small() };
    let store = EmbeddedStore::open(place.path(), config).unwrap();
    append(&store, &Sample::default().ticks(120));
    store.flush().unwrap();
    let query = FlowQuery {
        range: all(),
        filter: Filter::default(),
        group_by: Vec::new(),
        limits: Limits { rows: 1, ..Limits::default() },
    };
    let oldest = |store: &EmbeddedStore| {
        store.flows(&query).unwrap().coverage.cuts.into_iter().find_map(|cut| match cut {
            Cut::Before(moment) => Some(moment),
            _ => None,
        })
    };
    let oldest_seconds = (oldest(&store).unwrap().0 - BEGIN.0) / 1_000_000_000;
    assert!((60..=95).contains(&oldest_seconds), "{oldest_seconds}");
    drop(store);
    // Sums outlive the flows.
    let store = EmbeddedStore::open(place.path(), StoreConfig { flows_bytes: 1, ..small() }).unwrap();
    append(&store, &[Sample::default().tick(200)]);
    let (_, levels) = sums(&store);
    assert!(levels.iter().all(|level| !level.is_empty()));
    let edges = EdgeQuery {
        range: Range { since: BEGIN, until: Wall(BEGIN.0 + 60_000_000_000) },
        filter: Filter::default(),
        limits: Limits::default(),
        precision: Precision::Rollup,
    };
    assert!(!store.edges(&edges).unwrap().edges.is_empty());
}

#[test]
fn a_clock_that_jumps_ahead_does_not_cost_the_history() {
    let place = place();
    let mut store = EmbeddedStore::open(place.path(), small()).unwrap();
    append(&store, &Sample::default().ticks(60));
    store.flush().unwrap();
    let before = sums(&store);
    let segments = files(&place, ".parquet");
    // Ten years, for some minutes, over the end of an interval of each level.
    let years = 10 * 365 * 24 * 3_600_000_000_000;
    for second in 60..1_000 {
        let (mut tick, mut records) = Sample::default().tick(second);
        tick.wall.0 += years;
        records.truncate(1);
        store.append(&records, &tick).unwrap();
    }
    assert_eq!(sums(&store), before);
    let are_there = || segments.iter().all(|segment| segment.exists());
    assert!(are_there());
    // Nor does a start in these minutes, and one after them.
    for (second, ahead) in [(1_000, years), (1_001, 0)] {
        drop(store);
        store = EmbeddedStore::open(place.path(), small()).unwrap();
        let (mut tick, records) = Sample::default().tick(second);
        tick.wall.0 += ahead;
        store.append(&records, &tick).unwrap();
        store.flush().unwrap();
        assert!(are_there());
    }
    assert!(sums(&store).1.iter().zip(&before.1).all(|(now, before)| now.len() == before.len()));
}

#[test]
fn small_batches_are_joined_and_stay_what_they_were() {
    let place = place();
    let store = EmbeddedStore::open(place.path(), StoreConfig::default()).unwrap();
    let ticks = Sample::default().ticks(400);
    append(&store, &ticks);
    let records: Vec<&Record> = ticks.iter().flat_map(|(_, records)| records).collect();
    let expected: Vec<_> =
        by_role(&records).into_iter().map(|(role, sums)| (role, sums.both(), sums.flows)).collect();
    assert_eq!(sums(&store).0, expected);
    assert!(store.snapshot().unwrap().open.len() < 400);
}
