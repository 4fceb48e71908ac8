//! Clients and a server: connections that carry one request, connections that carry many, and one that carries much.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use weir_integration::Namespace;

use crate::{live::requests::reset_on_close, machine::processor_us};

/// Clients at a time.
const CLIENTS: usize = 4;

/// What a request and its answer consist of.
pub(crate) const REQUEST: [u8; 64] = [0x5a; 64];
/// What tells the server that bytes are to be swallowed, not answered.
const SWALLOW: [u8; 64] = [0x77; 64];
const PIECE: usize = 128 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Load {
    /// Connect, ask, hear the answer, end; again and again.
    Connections,
    /// Ask and hear the answer, again and again on one connection each.
    Requests,
    /// Send as much as can be sent, on one connection, by calls of so many bytes.
    Stream(usize),
}

impl Load {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Connections => "connect, request, response".to_owned(),
            Self::Requests => format!("request, response of {} bytes", REQUEST.len()),
            Self::Stream(bytes) => format!("one stream, {} KiB a call", bytes >> 10),
        }
    }

    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Connections => "connections a second",
            Self::Requests => "requests a second",
            Self::Stream(_) => "MiB a second",
        }
    }
}

/// What came out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Operations, or MiB.
    pub(crate) operations: f64,
    /// The same a second.
    pub(crate) rate: f64,
    /// Processor time of each, of clients, server, kernel on their behalf, and proxies, in microseconds.
    pub(crate) cpu_us: f64,
}

/// A server that answers each request with as many bytes, and swallows streams. It ends with the process.
pub(crate) struct Server {
    /// Connections that it has.
    live: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn listen(namespace: &Namespace, address: SocketAddr) -> anyhow::Result<Self> {
        let listener = namespace.run(|| TcpListener::bind(address))?;
        let live = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&live);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    serve(stream);
                    count.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Ok(Self { live })
    }

    /// Waits until nobody is served any more: a proxy may still have much to hand on when its client has ended.
    fn wait_for_quiet(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.live.load(Ordering::Relaxed) > 0 {
            ensure!(Instant::now() < deadline, "the server has connections that nobody ends");
            thread::yield_now();
        }
        Ok(())
    }
}

/// Clients that break off are no event.
fn serve(mut stream: TcpStream) {
    let mut room = vec![0; PIECE];
    drop(stream.set_nodelay(true));
    let mut request = [0; REQUEST.len()];
    while stream.read_exact(&mut request).is_ok() {
        if request == SWALLOW {
            while stream.read(&mut room).is_ok_and(|length| length > 0) {}
            return;
        }
        if stream.write_all(&request).is_err() {
            return;
        }
    }
}

/// Whether somebody answers a request there, sooner or later.
pub(crate) fn answers(namespace: &Namespace, address: SocketAddr) -> bool {
    namespace.run(|| {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if ask_once(address).is_ok() {
                return true;
            }
            thread::yield_now();
        }
        false
    })
}

/// Measures one load for a while.
pub(crate) fn measure(
    load: Load,
    namespace: &Namespace,
    address: SocketAddr,
    server: &Server,
    milliseconds: u64,
    others: &[u32],
) -> anyhow::Result<Measured> {
    let length = Duration::from_millis(milliseconds);
    // The first connection may have to find its way.
    namespace.run(|| ask_once(address)).with_context(|| format!("nobody answers at {address}"))?;
    let before = processor_time(others)?;
    let start = Instant::now();
    let clients = if matches!(load, Load::Stream(_)) { 1 } else { CLIENTS };
    let operations: f64 = thread::scope(|scope| {
        let client = |_| {
            scope.spawn(|| {
                namespace.run(|| match load {
                    Load::Connections => connections(address, start + length),
                    Load::Requests => requests(address, start + length),
                    Load::Stream(bytes) => stream(address, start + length, bytes),
                })
            })
        };
        let clients: Vec<_> = (0..clients).map(client).collect();
        clients.into_iter().map(|it| it.join().expect("clients do not panic")).sum::<anyhow::Result<f64>>()
    })?;
    let elapsed = start.elapsed().as_secs_f64();
    let cpu = processor_time(others)? - before;
    server.wait_for_quiet()?;
    Ok(Measured { operations, rate: operations / elapsed, cpu_us: cpu * 1e6 / operations.max(1.0) })
}

fn ask_once(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    reset_on_close(&stream)?;
    ask(&mut stream)
}

fn ask(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.write_all(&REQUEST)?;
    stream.read_exact(&mut [0; REQUEST.len()])?;
    Ok(())
}

fn connections(address: SocketAddr, end: Instant) -> anyhow::Result<f64> {
    let mut operations = 0.0;
    while Instant::now() < end {
        ask_once(address)?;
        operations += 1.0;
    }
    Ok(operations)
}

fn requests(address: SocketAddr, end: Instant) -> anyhow::Result<f64> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut operations = 0.0;
    while Instant::now() < end {
        ask(&mut stream)?;
        operations += 1.0;
    }
    Ok(operations)
}

/// So many bytes of text such as services exchange.
pub(crate) fn records(bytes: usize) -> Vec<u8> {
    let record = |number: usize| {
        let (price, day) = (number % 1000, number % 9 + 1);
        format!(
            "{{\"id\":{number},\"name\":\"user-{price}\",\"mail\":\"u{number}@example.com\",\"tags\":[\"a\",\"b\"],\"at\":\"2024-01-0{day}T10:00:00Z\"}}\n"
        )
    };
    (0..).flat_map(|number| record(number).into_bytes()).take(bytes).collect()
}

/// Counts MiB.
fn stream(address: SocketAddr, end: Instant, bytes: usize) -> anyhow::Result<f64> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&SWALLOW)?;
    let piece = records(bytes);
    let mut pieces = 0.0;
    while Instant::now() < end {
        stream.write_all(&piece)?;
        pieces += 1.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let share = bytes as f64 / f64::from(1 << 20);
    Ok(pieces * share)
}

/// Seconds of this process and of others, with those that they waited for.
fn processor_time(others: &[u32]) -> anyhow::Result<f64> {
    let mut sum = processor_us()? / 1e6;
    for process in others {
        // Gone children are in the sums of their parent (proc_pid_stat(5): utime, stime, cutime, cstime are 14 to 17).
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let ticks: f64 =
            fields.split_whitespace().skip(11).take(4).filter_map(|it| it.parse::<f64>().ok()).sum();
        sum += ticks / 100.0;
    }
    Ok(sum)
}

/// Round by round.
pub(crate) fn ratios(values: &[f64], bases: &[f64]) -> Vec<f64> {
    values.iter().zip(bases).filter(|(_, base)| **base > 0.0).map(|(value, base)| value / base).collect()
}

/// What the round took that was disturbed least.
pub(crate) fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::min)
}
