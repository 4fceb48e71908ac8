//! [`Writer`]: a thread that writes large buffers, so that decoding need not wait for a disk.
//!
//! Between the two is a queue of bounded length. While it is full the caller waits, and so does the kernel's ring; what then finds
//! no room there is counted by the kernel, connection by connection. Once the end is asked for, or has come, nobody waits for long.

use std::{
    io::{self, Write},
    mem,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{pcapng::Blocks, signals::Stop};

/// Bytes that are written at once.
const BUFFER: usize = 512 << 10;

/// Room of a buffer: it is handed on when a block makes it full.
const ROOM: usize = BUFFER + (128 << 10);

/// Buffers that wait to be written. With many of them, bytes would have left the caches before they are written; the ring is where
/// more of them wait.
const QUEUE: usize = 4;

/// How long the end waits for somebody who does not read, counted from the last time that he did.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often it is looked whether the end was asked for, while the queue is full.
const PAUSE: Duration = Duration::from_millis(20);

/// Why not everything was written.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The system refused.
    #[error("cannot write {name}")]
    Write {
        /// What was written to.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nobody reads.
    #[error("{bytes} bytes were not written to {name}: whoever reads it has stopped")]
    Stuck {
        /// What was written to.
        name: String,
        /// How many.
        bytes: u64,
    },
}

/// Writes what it is given, a little later.
#[derive(Debug)]
pub struct Writer {
    name: String,
    buffer: Vec<u8>,
    full: Option<SyncSender<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    /// One that came back.
    spare: Option<Vec<u8>>,
    thread: Option<JoinHandle<io::Result<()>>>,
    stop: Stop,
    /// When the end comes by itself.
    end: Option<Instant>,
    /// When waiting for a full queue has an end.
    deadline: Option<Instant>,
    taken: u64,
    dropped: u64,
    failure: Option<io::ErrorKind>,
}

impl Writer {
    /// Begins to write to `target`, which is called `name` in errors, for `ttl` if there is an end to it.
    pub fn start(
        target: Box<dyn Write + Send>,
        name: &str,
        stop: Stop,
        ttl: Option<Duration>,
    ) -> io::Result<Self> {
        let (full, buffers) = mpsc::sync_channel(QUEUE);
        let (give_back, empty) = mpsc::sync_channel(QUEUE + 1);
        let thread = thread::Builder::new()
            .name("weir-tap-writer".to_owned())
            .spawn(move || write_all(target, &buffers, &give_back))?;
        Ok(Self {
            name: name.to_owned(),
            buffer: Vec::with_capacity(ROOM),
            full: Some(full),
            empty,
            spare: None,
            thread: Some(thread),
            stop,
            end: ttl.map(|ttl| Instant::now() + ttl),
            deadline: None,
            taken: 0,
            dropped: 0,
            failure: None,
        })
    }

    /// Takes text; what goes wrong is told by the next [`Writer::hand_on`].
    pub fn put(&mut self, text: &str) {
        if self.failure.is_none() {
            self.failure = self.write_all(text.as_bytes()).err().map(|error| error.kind());
        }
    }

    /// Hands on what waits, and says whether anything went wrong since the last time.
    pub fn hand_on(&mut self) -> io::Result<()> {
        // Where the thread has ended, nobody reads any more, even if nothing else is to be written.
        let has_ended = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        match self.failure {
            Some(kind) => Err(kind.into()),
            None if has_ended => Err(io::ErrorKind::BrokenPipe.into()),
            None => self.hand_over(),
        }
    }

    /// Bytes so far.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// Writes what is left, and says whether all of it arrived.
    pub fn finish(&mut self) -> Result<(), WriterError> {
        self.deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
        // Where there was nothing to write, the file is to be empty.
        let handed = if self.taken == 0 { self.send(Vec::new()) } else { self.hand_over() };
        drop(self.full.take());
        let stuck = |bytes| WriterError::Stuck { name: self.name.clone(), bytes };
        let Some(thread) = self.thread.take() else { return Ok(()) };
        if handed.is_err() && !thread.is_finished() {
            return Err(stuck(self.dropped.max(1)));
        }
        // A pipe that nobody reads holds the thread; the process may end without it. Its end closes the channel.
        loop {
            let deadline = self.deadline.unwrap_or_else(Instant::now);
            match self.empty.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(_) => renew(&mut self.deadline),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return Err(stuck(self.dropped.max(1))),
            }
        }
        let written = thread.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
        match written {
            Ok(()) if self.dropped == 0 => Ok(()),
            Ok(()) => Err(stuck(self.dropped)),
            Err(source) => Err(WriterError::Write { name: self.name.clone(), source }),
        }
    }

    /// Hands the buffer to the thread, waiting while the queue is full.
    fn hand_over(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if self.dropped > 0 {
            // What follows a hole cannot be read.
            self.dropped += self.buffer.len() as u64;
            self.buffer.clear();
            return Err(io::ErrorKind::TimedOut.into());
        }
        let buffer = mem::take(&mut self.buffer);
        let sent = self.send(buffer);
        let spare = self.spare.take().or_else(|| self.empty.try_recv().ok());
        self.buffer = spare.unwrap_or_else(|| Vec::with_capacity(ROOM));
        sent
    }

    fn send(&mut self, mut buffer: Vec<u8>) -> io::Result<()> {
        let Some(full) = &self.full else { return Err(io::ErrorKind::BrokenPipe.into()) };
        loop {
            match full.try_send(buffer) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(TrySendError::Full(again)) => {
                    if self.stop.is_asked() || self.end.is_some_and(|end| Instant::now() >= end) {
                        self.deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                    }
                    if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                        self.dropped += again.len() as u64;
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    buffer = again;
                    // One that comes back makes room for one.
                    if let Ok(spare) = self.empty.recv_timeout(PAUSE) {
                        self.spare = Some(spare);
                        renew(&mut self.deadline);
                    }
                }
            }
        }
    }
}

/// There is somebody who reads.
fn renew(deadline: &mut Option<Instant>) {
    if deadline.is_some() {
        *deadline = Some(Instant::now() + PATIENCE);
    }
}

impl Blocks for Writer {
    fn room(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn whole(&mut self, length: usize) -> io::Result<()> {
        self.taken += length as u64;
        if self.buffer.len() >= BUFFER { self.hand_over() } else { Ok(()) }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        self.whole(bytes.len())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()
    }
}

fn write_all(
    mut target: Box<dyn Write + Send>,
    buffers: &Receiver<Vec<u8>>,
    give_back: &SyncSender<Vec<u8>>,
) -> io::Result<()> {
    // Only who reads from the kernel comes before others.
    rustix::process::setpriority_process(None, 0).ok();
    for mut buffer in buffers {
        target.write_all(&buffer)?;
        target.flush()?;
        buffer.clear();
        // Where there are enough of them, this one goes.
        give_back.try_send(buffer).ok();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_stopped_does_not_hold_a_tap_beyond_its_time() {
        let (_reader, target) = io::pipe().unwrap();
        let mut writer =
            Writer::start(Box::new(target), "a pipe", Stop::never(), Some(Duration::ZERO)).unwrap();
        let piece = vec![0; BUFFER];
        let error = loop {
            if let Err(error) = writer.write_all(&piece) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(matches!(writer.finish(), Err(WriterError::Stuck { .. })));
    }
}
