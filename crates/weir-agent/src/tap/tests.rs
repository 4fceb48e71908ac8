//! A session fed with what the kernel would tell.

mod outputs;
mod sessions;

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use weir_datapath::tap::{
    Closed, Data, Event, Gap, GapReason, Opened, Place, Process, Role, RuleId, Side, SocketId, Transport, Way,
};
use weir_flow::{Monotonic, Tick, Wall};

use super::{Session, SessionSettings};

/// The start of every session.
const START: Tick = Tick { monotonic: Monotonic(1_000), wall: Wall(1_732_232_030_000_001_000) };

fn session(settings: SessionSettings) -> Session {
    Session::new(settings, START, Box::new(|_| None))
}

/// A moment so many milliseconds behind the start.
fn at(milliseconds: u64) -> u64 {
    START.monotonic.0 + milliseconds * 1_000_000
}

fn opened(socket: u64, transport: Transport, role: Option<Role>) -> Opened {
    let mut command = [0; 16];
    command[..4].copy_from_slice(b"curl");
    Opened {
        socket: SocketId(socket),
        time_ns: at(0),
        process: Process { pid: 812, tid: 812, command, cgroup: 0, user: 0 },
        transport,
        local: "10.0.0.1:40000".parse().unwrap(),
        remote: Some("10.0.0.2:8080".parse().unwrap()),
        role,
        is_existing: false,
        is_late: false,
        rule: RuleId(1),
    }
}

/// Where something of a TCP connection is; the call had nothing else.
fn place(socket: u64, way: Way, position: u64, length: usize) -> Place {
    Place {
        socket: SocketId(socket),
        time_ns: at(position + 1),
        way,
        position,
        rule: RuleId(1),
        pid: 812,
        tid: 812,
        operation: u32::try_from(length).unwrap(),
        offset: 0,
        peer: None,
    }
}

fn data(socket: u64, way: Way, position: u64, bytes: &[u8]) -> Event<'_> {
    Event::Data(Data { place: place(socket, way, position, bytes.len()), bytes })
}

fn gap(socket: u64, way: Way, position: u64, length: u64, reason: GapReason) -> Event<'static> {
    let place = place(socket, way, position, usize::try_from(length).unwrap());
    Event::Gap(Gap { place, length, reason })
}

/// A datagram, of a socket that has no other end.
fn datagram(socket: u64, way: Way, peer: SocketAddr, bytes: &[u8]) -> Event<'_> {
    Event::Data(Data { place: Place { peer: Some(peer), ..place(socket, way, 0, bytes.len()) }, bytes })
}

/// A side of which everything was captured.
fn whole(bytes: usize) -> Side {
    Side { seen: bytes as u64, captured: bytes as u64, unseen: Some(0), ..Side::default() }
}

fn closed(socket: u64, sent: Side, received: Side) -> Event<'static> {
    Event::Closed(Closed { socket: SocketId(socket), time_ns: at(1000), sent, received })
}

/// Memory that is written to by another thread.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn taken(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
