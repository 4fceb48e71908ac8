use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::net::UnixListener,
    time::Instant,
};

use rustix::fs::{FileType, Mode};

use super::{stream::Stream, *};
use crate::{
    batch::samples::parcels,
    outlet::{Consumer as _, Patience, Receipt, WriteError},
};

fn lines(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with('{') && line.ends_with('}')).count()
}

#[test]
fn a_file_is_renamed_between_batches_and_the_oldest_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows");
    let mut writer = JsonWriter::new(&Plan::File { path: path.clone(), rotate_size: 4096, rotate_keep: 2 });
    for second in 1..=3 {
        assert_eq!(writer.write(&parcels(50, second), &Patience::default()).unwrap(), Receipt::default());
    }
    assert_eq!(writer.write(&parcels(1, 4), &Patience::default()).unwrap(), Receipt::default());
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    assert_eq!(["flows", "flows.1", "flows.2"].map(|name| lines(&read(name))), [1, 50, 50]);
    assert!(!directory.path().join("flows.3").exists());
}

#[test]
fn a_file_that_somebody_renamed_is_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows");
    let mut writer =
        JsonWriter::new(&Plan::File { path: path.clone(), rotate_size: 1 << 30, rotate_keep: 1 });
    assert_eq!(writer.write(&parcels(2, 1), &Patience::default()).unwrap(), Receipt::default());
    fs::rename(&path, directory.path().join("taken")).unwrap();
    assert_eq!(writer.write(&parcels(3, 2), &Patience::default()).unwrap(), Receipt::default());
    assert_eq!(writer.write(&parcels(4, 3), &Patience::default()).unwrap(), Receipt::default());
    assert_eq!(lines(&fs::read_to_string(&path).unwrap()), 4);
}

#[test]
fn a_connection_that_breaks_is_made_again_and_begins_with_a_whole_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = listener.local_addr().unwrap().to_string();
    let mut writer = JsonWriter::new(&Plan::Tcp(peer));
    assert_eq!(writer.write(&parcels(2, 1), &Patience::default()).unwrap(), Receipt::default());
    let first = BufReader::new(listener.accept().unwrap().0);
    assert!(first.lines().take(2).all(|line| line.unwrap().ends_with('}')));
    // The first connection is closed now; sooner or later a write notices.
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    while writer.write(&parcels(1, 2), &Patience::default()).is_ok() {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(writer.write(&parcels(1, 2), &Patience::default()).unwrap(), Receipt::default());
    let second = BufReader::new(listener.accept().unwrap().0);
    let line = second.lines().next().unwrap().unwrap();
    assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
}

#[test]
fn nothing_is_given_to_a_peer_that_has_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = Stream::tcp(listener.local_addr().unwrap().to_string());
    let patience = Patience::default();
    assert_eq!(stream.write(b"first\n", &patience).unwrap(), 6);
    let (mut connection, _) = listener.accept().unwrap();
    let mut first = [0; 6];
    std::io::Read::read_exact(&mut connection, &mut first).unwrap();
    // A process that another test starts may have the descriptor, too, for a moment.
    connection.shutdown(std::net::Shutdown::Both).unwrap();
    drop(connection);
    let error = stream.write(b"second\n", &patience).unwrap_err();
    assert!(error.to_string().contains("the peer closed the connection"), "{error}");
    assert_eq!(stream.write(b"second\n", &patience).unwrap(), 7);
    let (mut connection, _) = listener.accept().unwrap();
    let mut second = [0; 7];
    std::io::Read::read_exact(&mut connection, &mut second).unwrap();
    assert_eq!(&second, b"second\n");
}

#[test]
fn a_peer_that_does_not_read_is_waited_for_no_longer_than_patience_lasts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut writer = JsonWriter::new(&Plan::Unix(path));
    let patience = Patience::default();
    patience.end_at(Instant::now());
    let large = parcels(10_000, 1);
    let error = writer.write(&large, &patience).unwrap_err();
    assert!(
        matches!(&error, WriteError::Retry(reason) if reason.to_string().contains("nobody reads")),
        "{error}"
    );
}

#[test]
fn a_fifo_without_reader_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let plan = Plan::File { path: path.clone(), rotate_size: 1 << 20, rotate_keep: 1 };
    let mut writer = JsonWriter::new(&plan);
    let error = writer.write(&parcels(1, 1), &Patience::default()).unwrap_err();
    assert!(
        matches!(&error, WriteError::Retry(reason) if reason.to_string().contains("nobody reads it")),
        "{error}"
    );
}
