use std::os::unix::fs::FileExt as _;

use super::*;
use crate::batch::samples::batch;

const RUN: u64 = 7;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn config(&self, bytes: u64) -> SpoolConfig {
        SpoolConfig { path: self.directory.path().to_owned(), bytes }
    }

    fn open(&self, run: u64) -> (Spool, Opened) {
        Spool::open(&self.config(1 << 20), run).unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "spool"));
        files.sort();
        files
    }
}

fn append(spool: &mut Spool, flows: u16, second: u64) -> ParcelId {
    let batch = batch(flows, second);
    let mut evicted = Vec::new();
    let (_, id) = spool.append(&Spool::frame(&batch), &batch, &mut evicted).unwrap();
    assert!(evicted.is_empty());
    id
}

/// Name, second and records of what comes next; `None` where there is nothing or it is damaged.
fn next(spool: &mut Spool) -> Option<(ParcelId, u64, usize)> {
    match spool.take().unwrap()? {
        Taken::Batch { id, batch, .. } => Some((id, batch.tick.wall.0 / 1_000_000_000, batch.records.len())),
        Taken::Damaged { .. } => None,
    }
}

#[test]
fn what_is_written_is_read_with_every_field_and_what_it_counts() {
    let place = Place::new();
    let (mut spool, opened) = place.open(RUN);
    assert_eq!(opened.earlier, Unread::default());
    let written = batch(50, 3);
    let id = append(&mut spool, 50, 3);
    let Some(Taken::Batch { id: read_id, batch: read, is_earlier, .. }) = spool.take().unwrap() else {
        panic!()
    };
    assert_eq!((read_id, is_earlier), (id, false));
    assert_eq!((read.tick, read.length, read.is_last), (written.tick, written.length, written.is_last));
    assert_eq!(read.tallies, written.tallies);
    let lines = |batch: &Batch| {
        let mut lines = Vec::new();
        for record in &batch.records {
            let mut line = String::new();
            weir_flow::format::json_line(record, &mut line);
            lines.push(line);
        }
        lines.sort();
        lines
    };
    assert_eq!(lines(&read), lines(&written));
    assert!(spool.take().unwrap().is_none());
}

#[test]
fn a_death_loses_nothing_that_was_appended_and_repeats_only_what_was_not_settled() {
    let place = Place::new();
    let (mut spool, _) = place.open(RUN);
    let ids: Vec<ParcelId> = (1..=4).map(|second| append(&mut spool, 2, second)).collect();
    assert_eq!(next(&mut spool), Some((ids[0], 1, 2)));
    spool.settle(usize::MAX).unwrap();
    // Delivered perhaps, but it was not noted.
    assert_eq!(next(&mut spool), Some((ids[1], 2, 2)));
    drop(spool);
    let (mut spool, opened) = place.open(RUN + 1);
    assert_eq!((opened.earlier.records, opened.earlier.frames, opened.damaged.len()), (6, 3, 0));
    for (index, id) in ids.iter().enumerate().skip(1) {
        assert_eq!(next(&mut spool), Some((*id, index as u64 + 1, 2)));
    }
    assert_eq!(next(&mut spool), None);
    // What this run writes comes after, in a file of its own; the old one goes once it is done with.
    append(&mut spool, 1, 9);
    assert_eq!(place.files().len(), 2);
    spool.settle(usize::MAX).unwrap();
    assert_eq!(place.files().len(), 1);
    assert_eq!(next(&mut spool).map(|(_, second, _)| second), Some(9));
    spool.settle(usize::MAX).unwrap();
    drop(spool);
    let (_, opened) = place.open(RUN + 2);
    assert_eq!(opened.earlier, Unread::default());
    assert!(place.files().is_empty());
}

#[test]
fn a_torn_tail_is_cut_wherever_it_is_torn() {
    let place = Place::new();
    let (mut spool, _) = place.open(RUN);
    append(&mut spool, 2, 1);
    let file = &place.files()[0];
    let whole = fs::metadata(file).unwrap().len();
    append(&mut spool, 2, 2);
    drop(spool);
    let bytes = fs::read(file).unwrap();
    for length in (usize::try_from(whole).unwrap()..bytes.len()).step_by(11) {
        fs::write(file, &bytes[..length]).unwrap();
        let (_, opened) = place.open(RUN + 1);
        assert_eq!((opened.earlier.frames, opened.damaged.len()), (1, 0), "{length}");
    }
    // Not even the head of the file is whole.
    fs::write(file, &bytes[..20]).unwrap();
    let (_, opened) = place.open(RUN + 1);
    assert_eq!((opened.earlier.frames, opened.damaged.len()), (0, 1));
}

#[test]
fn a_file_that_nobody_understands_is_set_aside_and_named() {
    let place = Place::new();
    fs::create_dir_all(place.directory.path()).unwrap();
    let file = place.directory.path().join("0000000007.spool");
    fs::write(&file, "weirspl9 of a later version").unwrap();
    let (mut spool, opened) = place.open(RUN);
    assert_eq!((opened.earlier.frames, opened.damaged.len()), (0, 1));
    assert!(opened.damaged[0].contains("0000000007.spool.damaged"), "{:?}", opened.damaged);
    assert_eq!(fs::read(file.with_added_extension("damaged")).unwrap(), b"weirspl9 of a later version");
    append(&mut spool, 1, 1);
    drop(spool);
    // It is named once.
    let (_, opened) = place.open(RUN + 1);
    assert_eq!((opened.earlier.frames, opened.damaged.len()), (1, 0));
}

#[test]
fn each_batch_can_be_done_with_by_itself() {
    let place = Place::new();
    let (mut spool, _) = place.open(RUN);
    let ids: Vec<ParcelId> = (1..=3).map(|second| append(&mut spool, 2, second)).collect();
    for (id, second) in ids.iter().zip(1..) {
        assert_eq!(next(&mut spool), Some((*id, second, 2)));
    }
    spool.settle(2).unwrap();
    drop(spool);
    let (mut spool, opened) = place.open(RUN + 1);
    assert_eq!(opened.earlier.frames, 1);
    assert_eq!(next(&mut spool), Some((ids[2], 3, 2)));
}

#[test]
fn a_delivered_file_that_could_not_be_removed_takes_nothing_from_those_behind_it() {
    let place = Place::new();
    let (mut spool, _) = place.open(RUN);
    append(&mut spool, 2, 1);
    drop(spool);
    let (mut spool, _) = place.open(RUN + 1);
    let ids: Vec<ParcelId> = (2..=4).map(|second| append(&mut spool, 2, second)).collect();
    let oldest = place.files()[0].clone();
    let bytes = fs::read(&oldest).unwrap();
    assert_eq!(next(&mut spool).map(|(_, second, _)| second), Some(1));
    assert_eq!(next(&mut spool).map(|(_, second, _)| second), Some(2));
    spool.settle(2).unwrap();
    drop(spool);
    fs::write(&oldest, bytes).unwrap();
    let (mut spool, opened) = place.open(RUN + 2);
    assert_eq!(opened.earlier.frames, 2);
    assert!(!oldest.exists());
    assert_eq!(next(&mut spool), Some((ids[1], 3, 2)));
    assert_eq!(next(&mut spool), Some((ids[2], 4, 2)));
    assert_eq!(next(&mut spool), None);
}

#[test]
fn what_is_being_delivered_stays_on_disk_when_there_is_no_room() {
    let place = Place::new();
    let open = |run| Spool::open(&place.config(64 << 10), run).unwrap();
    let (mut spool, _) = open(RUN);
    let first = append(&mut spool, 20, 1);
    assert_eq!(next(&mut spool), Some((first, 1, 20)));
    let (mut evicted, mut second) = (Vec::new(), 1);
    while evicted.len() < 3 {
        second += 1;
        let batch = batch(20, second);
        spool.append(&Spool::frame(&batch), &batch, &mut evicted).unwrap();
    }
    let lost: u64 =
        evicted.iter().flat_map(|evicted| evicted.tallies.values()).map(|tally| tally.records).sum();
    // The process dies: what was being delivered is there still, with what is in the same file.
    drop(spool);
    let (mut spool, opened) = open(RUN + 1);
    assert_eq!(opened.earlier.records + lost, second * 20);
    assert_eq!(next(&mut spool), Some((first, 1, 20)));
    // All of it is being delivered: nothing goes, and nothing gets in.
    while next(&mut spool).is_some() {}
    let error = loop {
        let batch = batch(20, 1);
        if let Err(error) = spool.append(&Spool::frame(&batch), &batch, &mut evicted) {
            break error;
        }
        next(&mut spool);
    };
    assert!(matches!(error, SpoolError::InFlight { .. }), "{error}");
    assert_eq!(evicted.len(), 3);
    spool.settle(usize::MAX).unwrap();
    append(&mut spool, 20, 1);
}

#[test]
fn a_file_that_cannot_be_opened_is_read_later_and_one_that_is_gone_is_counted() {
    let place = Place::new();
    let (mut spool, _) = place.open(RUN);
    append(&mut spool, 2, 1);
    append(&mut spool, 3, 2);
    drop(spool);
    let (mut spool, _) = place.open(RUN + 1);
    let file = place.files()[0].clone();
    let away = file.with_extension("away");
    fs::rename(&file, &away).unwrap();
    // The system refuses: this leads nowhere.
    std::os::unix::fs::symlink(&file, &file).unwrap();
    let error = spool.take().unwrap_err();
    assert!(matches!(error, SpoolError::Read { .. }), "{error}");
    assert_eq!(spool.unread().records, 5);
    fs::remove_file(&file).unwrap();
    fs::rename(&away, &file).unwrap();
    assert_eq!(next(&mut spool).map(|(_, second, _)| second), Some(1));
    drop(spool);

    let (mut spool, _) = place.open(RUN + 2);
    fs::remove_file(&file).unwrap();
    let Some(Taken::Damaged { tallies, .. }) = spool.take().unwrap() else { panic!() };
    assert_eq!(tallies.values().map(|tally| tally.records).sum::<u64>(), 5);
    assert!(spool.take().unwrap().is_none());
}

#[test]
fn behind_a_damaged_head_the_next_batch_is_found_under_its_name() {
    for (at, value) in [(2, 0xff), (3, 0xff), (0, 0xff), (5, 0x00), (20, 0xff)] {
        let place = Place::new();
        let (mut spool, _) = place.open(RUN);
        append(&mut spool, 2, 1);
        let start = fs::metadata(&place.files()[0]).unwrap().len();
        append(&mut spool, 3, 2);
        let ids: Vec<ParcelId> = (3..=4).map(|second| append(&mut spool, 4, second)).collect();
        drop(spool);
        let file = OpenOptions::new().read(true).write(true).open(&place.files()[0]).unwrap();
        let mut old = [0];
        file.read_exact_at(&mut old, start + at).unwrap();
        file.write_all_at(&[if old[0] == value { !value } else { value }], start + at).unwrap();
        let (mut spool, opened) = place.open(RUN + 1);
        assert_eq!((opened.earlier.frames, opened.damaged.len()), (3, 1), "{at}");
        assert!(opened.damaged[0].contains(&format!("at {start}: ")), "{:?}", opened.damaged);
        assert_eq!(next(&mut spool).map(|(_, second, _)| second), Some(1));
        for (id, second) in ids.iter().zip(3..) {
            assert_eq!(next(&mut spool), Some((*id, second, 4)), "{at}");
        }
        assert_eq!(next(&mut spool), None);
        spool.settle(usize::MAX).unwrap();
        assert!(place.files().is_empty());
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_damaged_all_that_is_read_is_as_it_was_written(
        damage in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 1..=255_u8), 1..4),
    ) {
        let place = Place::new();
        let (mut spool, _) = place.open(RUN);
        let written: Vec<_> =
            (1..=6).map(|second| (append(&mut spool, u16::try_from(second).unwrap(), second), second)).collect();
        drop(spool);
        let file = &place.files()[0];
        let mut bytes = fs::read(file).unwrap();
        for (index, change) in damage {
            let at = index.index(bytes.len());
            bytes[at] ^= change;
        }
        fs::write(file, bytes).unwrap();
        let (mut spool, _) = place.open(RUN + 1);
        while let Some(taken) = spool.take().unwrap() {
            if let Taken::Batch { id, batch, .. } = taken {
                let second = batch.tick.wall.0 / 1_000_000_000;
                proptest::prop_assert!(written.contains(&(id, second)));
                proptest::prop_assert_eq!(batch.records.len() as u64, second);
            }
        }
    }
}

#[test]
fn a_damaged_batch_is_named_and_counted_and_those_around_it_are_read() {
    let place = Place::new();
    let (mut spool, _) = place.open(RUN);
    append(&mut spool, 2, 1);
    let second = fs::metadata(&place.files()[0]).unwrap().len();
    append(&mut spool, 3, 2);
    let third = fs::metadata(&place.files()[0]).unwrap().len();
    append(&mut spool, 4, 3);
    let file = OpenOptions::new().write(true).open(&place.files()[0]).unwrap();
    // Near its end are records.
    file.write_all_at(&[0xff; 4], third - 10).unwrap();
    assert_eq!(next(&mut spool).map(|(_, second, _)| second), Some(1));
    let Some(Taken::Damaged { place: text, tallies, .. }) = spool.take().unwrap() else { panic!() };
    assert!(text.contains(&format!("at {second}: its checksum is wrong")), "{text}");
    assert_eq!(tallies.values().map(|tally| tally.records).sum::<u64>(), 3);
    assert_eq!(next(&mut spool).map(|(_, second, _)| second), Some(3));
    assert_eq!(next(&mut spool), None);
    drop(spool);
    // At its beginning is what says where the next one is.
    file.write_all_at(&[0xff; 4], second + 8).unwrap();
    let (mut spool, opened) = place.open(RUN + 1);
    assert_eq!((opened.earlier.frames, opened.damaged.len()), (2, 1));
    assert!(opened.damaged[0].contains("make no sense"), "{:?}", opened.damaged);
    assert_eq!(next(&mut spool).map(|(_, second, _)| second), Some(1));
    assert_eq!(next(&mut spool).map(|(_, second, _)| second), Some(3));
    assert_eq!(next(&mut spool), None);
}

#[test]
fn the_oldest_file_goes_when_there_is_no_room() {
    let place = Place::new();
    let (mut spool, _) = Spool::open(&place.config(64 << 10), RUN).unwrap();
    let (mut evicted, mut second) = (Vec::new(), 0);
    while evicted.is_empty() {
        second += 1;
        let batch = batch(20, second);
        spool.append(&Spool::frame(&batch), &batch, &mut evicted).unwrap();
        let bytes: u64 = place.files().iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(bytes <= 64 << 10, "{bytes}");
    }
    let lost: u64 = evicted[0].tallies.values().map(|tally| tally.records).sum();
    assert!(lost > 0 && lost < second * 20 / 4, "{lost} of {}", second * 20);
    assert_eq!(spool.unread().records + lost, second * 20);
    assert_eq!(next(&mut spool).map(|(_, second, _)| second), Some(1 + lost / 20));
    let large = batch(20_000, 1);
    let error = spool.append(&Spool::frame(&large), &large, &mut evicted).unwrap_err();
    assert!(matches!(error, SpoolError::TooLarge { .. }), "{error}");
}

#[test]
fn a_spool_belongs_to_one_sink_at_a_time() {
    let place = Place::new();
    let first = place.open(RUN);
    let error = Spool::open(&place.config(1 << 20), RUN).unwrap_err().to_string();
    assert!(error.contains("is in use"), "{error}");
    drop(first);
    place.open(RUN);
}
