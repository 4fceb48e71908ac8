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
    match spool.take()? {
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
    let Some(Taken::Batch { id: read_id, batch: read, is_earlier, .. }) = spool.take() else { panic!() };
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
    assert!(spool.take().is_none());
}

#[test]
fn a_death_loses_nothing_that_was_appended_and_repeats_only_what_was_not_settled() {
    let place = Place::new();
    let (mut spool, _) = place.open(RUN);
    let ids: Vec<ParcelId> = (1..=4).map(|second| append(&mut spool, 2, second)).collect();
    assert_eq!(next(&mut spool), Some((ids[0], 1, 2)));
    spool.settle().unwrap();
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
    spool.settle().unwrap();
    assert_eq!(place.files().len(), 1);
    assert_eq!(next(&mut spool).map(|(_, second, _)| second), Some(9));
    spool.settle().unwrap();
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
    let Some(Taken::Damaged { place: text, tallies, .. }) = spool.take() else { panic!() };
    assert!(text.contains(&format!("at {second}: its checksum is wrong")), "{text}");
    assert_eq!(tallies.values().map(|tally| tally.records).sum::<u64>(), 3);
    assert_eq!(next(&mut spool).map(|(_, second, _)| second), Some(3));
    assert_eq!(next(&mut spool), None);
    drop(spool);
    // At its beginning is what says where the next one is.
    file.write_all_at(&[0xff; 4], second + 8).unwrap();
    let (mut spool, opened) = place.open(RUN + 1);
    assert_eq!((opened.earlier.frames, opened.damaged.len()), (1, 1));
    assert!(opened.damaged[0].contains("make no sense"), "{:?}", opened.damaged);
    assert_eq!(next(&mut spool).map(|(_, second, _)| second), Some(1));
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
