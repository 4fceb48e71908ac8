//! Does the tap tell the truth on this machine? Known bytes are sent by every kind of call, and what is told is compared with
//! them.
//!
//! All of it happens on loopback, within this process. Whoever runs it needs what a tap needs.

use std::{
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    process,
    time::{Duration, Instant},
};

use super::{
    Chosen, Event, Limits, MOST_CALL, Payload, Processes, Rule, RuleId, Settings, Side, SocketId, Tap,
    TapError,
};

/// Bytes of each message: less than a record, several records, and more than a segment.
const SIZES: [usize; 3] = [1, 4000, 40_000];

/// Longest time to wait for a closing.
const PATIENCE: Duration = Duration::from_secs(5);

/// A kind of call that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The calls that sent and received: `writev/readv`.
    pub calls: &'static str,
    /// Loopback address that they were tried on.
    pub address: IpAddr,
    /// Bytes that were sent, and received.
    pub bytes: u64,
    /// What the tap told of the end that sent.
    pub sent: Side,
    /// What it told of the end that received.
    pub received: Side,
    /// Bytes that were told as others than they were, or at another place.
    pub wrong: u64,
}

impl Outcome {
    /// Whether every byte was told as it was, at both ends.
    pub fn is_exact(&self) -> bool {
        let is_whole = |side: &Side| side.captured == self.bytes && side.is_balanced();
        self.wrong == 0 && is_whole(&self.sent) && is_whole(&self.received)
    }

    /// Whether the ledgers of both ends account for every byte, also where some were not copied.
    pub fn is_accounted_for(&self) -> bool {
        let accounts = |side: &Side| side.is_balanced() && side.seen + side.unseen.unwrap_or(0) == self.bytes;
        self.wrong == 0 && accounts(&self.sent) && accounts(&self.received)
    }
}

/// Tries every kind of call over IPv4 and, where there is an address, IPv6.
pub fn run(settings: &Settings) -> Result<(Chosen, Vec<Outcome>), TapError> {
    let (mut tap, chosen) = Tap::open(settings)?;
    let mut outcomes = Vec::new();
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        if address.is_ipv6() && UdpSocket::bind((address, 0)).is_err() {
            continue;
        }
        for calls in CALLS {
            outcomes.push(attempt(&mut tap, &calls, address)?);
        }
    }
    tap.close(&mut |_| {})?;
    Ok((chosen, outcomes))
}

/// A way to send all bytes and one to receive them.
struct Calls {
    name: &'static str,
    send: fn(&TcpStream, &[u8]) -> io::Result<usize>,
    receive: fn(&TcpStream, &mut [u8]) -> io::Result<usize>,
}

const CALLS: [Calls; 5] = [
    Calls {
        name: "write/read",
        send: |mut socket, bytes| socket.write(bytes),
        receive: |mut socket, buffer| socket.read(buffer),
    },
    Calls { name: "send/recv", send, receive },
    Calls {
        name: "writev/readv",
        send: |mut socket, bytes| {
            let (first, rest) = bytes.split_at(bytes.len() / 3);
            socket.write_vectored(&[IoSlice::new(first), IoSlice::new(&[]), IoSlice::new(rest)])
        },
        receive: |mut socket, buffer| {
            let half = buffer.len() / 2;
            let (first, rest) = buffer.split_at_mut(half);
            socket.read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(rest)])
        },
    },
    Calls { name: "sendmsg/recvmsg", send: send_message, receive: receive_message },
    Calls { name: "sendfile/recv", send: send_file, receive },
];

fn send(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the bytes outlive the call.
    count(unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) })
}

fn receive(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer outlives the call.
    count(unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) })
}

fn send_message(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    let segments = [IoSlice::new(first), IoSlice::new(rest)];
    let message = message(segments.as_ptr().cast_mut().cast(), segments.len());
    // SAFETY: the message refers to segments that outlive the call.
    count(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) })
}

fn receive_message(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let half = buffer.len() / 2;
    let (first, rest) = buffer.split_at_mut(half);
    let mut segments = [IoSliceMut::new(first), IoSliceMut::new(rest)];
    let mut message = message(segments.as_mut_ptr().cast(), segments.len());
    // SAFETY: as above.
    count(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) })
}

fn message(segments: *mut libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: numbers and pointers, all of which may be zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = segments;
    message.msg_iovlen = count;
    message
}

fn send_file(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    use std::os::fd::FromRawFd as _;
    // SAFETY: makes a descriptor; the name ends with a zero.
    let memory = unsafe { libc::memfd_create(c"weir".as_ptr(), libc::MFD_CLOEXEC) };
    if memory < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows of it.
    let mut file = unsafe { std::fs::File::from_raw_fd(memory) };
    file.write_all(bytes)?;
    let mut offset = 0;
    // SAFETY: both descriptors are open, and the offset is ours.
    count(unsafe { libc::sendfile(socket.as_raw_fd(), memory, &raw mut offset, bytes.len()) })
}

fn count(outcome: isize) -> io::Result<usize> {
    usize::try_from(outcome).ok().ok_or_else(io::Error::last_os_error)
}

/// The byte at a position: no record begins with the same bytes as another.
fn byte(position: u64) -> u8 {
    let mixed = position.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_be_bytes()[0]
}

fn attempt(tap: &mut Tap, calls: &Calls, address: IpAddr) -> Result<Outcome, TapError> {
    let listener = TcpListener::bind((address, 0)).map_err(TapError::Trial)?;
    let to = listener.local_addr().map_err(TapError::Trial)?;
    tap.set_rules(&[Rule {
        id: RuleId(1),
        processes: Processes { pids: vec![process::id()], ..Processes::default() },
        networks: Vec::new(),
        ports: vec![to.port()..=to.port()],
        way: None,
        role: None,
        payload: Payload::Full,
        limits: Limits { call: MOST_CALL, ..Limits::default() },
    }])?;
    let bytes = exchange(&listener, calls).map_err(TapError::Trial)?;
    let mut outcome = Outcome {
        calls: calls.name,
        address,
        bytes,
        sent: Side::default(),
        received: Side::default(),
        wrong: 0,
    };
    let mut closed: Vec<SocketId> = Vec::new();
    let end = Instant::now() + PATIENCE;
    while closed.len() < 2 && Instant::now() < end {
        tap.wait(PATIENCE).map_err(TapError::Ring)?;
        tap.read(&mut |event| match event {
            Event::Data(data) => {
                let expected = (data.place.position..).map(byte);
                let wrong = data.bytes.iter().zip(expected).filter(|(told, byte)| *told != byte).count();
                outcome.wrong += wrong as u64;
            }
            Event::Closed(told) => {
                closed.push(told.socket);
                // One end only sends, the other only receives.
                if told.sent.seen + told.sent.unseen.unwrap_or(0) > 0 {
                    outcome.sent = told.sent;
                } else {
                    outcome.received = told.received;
                }
            }
            Event::Opened(_) | Event::Gap(_) | Event::Finished(_) => {}
        })?;
    }
    Ok(outcome)
}

/// Sends all sizes over a new connection, and returns how many bytes these were.
fn exchange(listener: &TcpListener, calls: &Calls) -> io::Result<u64> {
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    client.set_nonblocking(true)?;
    server.set_read_timeout(Some(PATIENCE))?;
    let mut position = 0;
    for size in SIZES {
        let bytes: Vec<u8> = (position..).take(size).map(byte).collect();
        let (mut sent, mut received) = (0, 0);
        let mut buffer = vec![0; size];
        // In turns, so that no thread is needed: what does not fit the socket waits for its turn.
        while received < size {
            if sent < size {
                match (calls.send)(&client, &bytes[sent..]) {
                    Ok(count) => sent += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            let count = (calls.receive)(&server, &mut buffer[received..])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            received += count;
        }
        position += size as u64;
    }
    Ok(position)
}
