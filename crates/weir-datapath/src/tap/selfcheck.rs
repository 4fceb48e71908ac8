//! Does the tap tell the truth on this machine? Known bytes are sent by every kind of call, and what is told is compared with
//! them.
//!
//! All of it happens on loopback, within this process. Whoever runs it needs what a tap needs.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    process, thread,
    time::{Duration, Instant},
};

use super::{
    Chosen, Event, Limits, MOST_CALL, Payload, Processes, Rule, RuleId, Settings, Side, SocketId, Tap,
    TapError, Transport, Way,
};

pub mod calls;

use self::calls::{Receive, Send};

/// Bytes of each message: less than a record, several records, and more than a segment.
const SIZES: [usize; 3] = [1, 4000, 40_000];

/// Longest time to wait for what is to be told.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ways to send a stream. The 32-bit interface is not tried: a kernel without it kills whoever uses it.
const SENDS: [Send; 9] = [
    Send::Write,
    Send::Send,
    Send::Writev(3),
    Send::Pwritev2,
    Send::SendMsg,
    Send::SendMmsg(2),
    Send::ZeroCopy,
    Send::Sendfile,
    Send::Splice,
];

/// Ways to receive a stream.
const RECEIVES: [Receive; 9] = [
    Receive::Recv,
    Receive::Readv(3),
    Receive::Preadv2,
    Receive::RecvMsg,
    Receive::RecvMmsg(2),
    Receive::WaitAll,
    Receive::PeekAndRead,
    Receive::Truncate,
    Receive::Splice,
];

/// Ways to send datagrams.
const DATAGRAM_SENDS: [Send; 6] =
    [Send::Write, Send::Send, Send::Writev(3), Send::Pwritev2, Send::SendMsg, Send::SendMmsg(1)];

/// Ways to receive datagrams.
const DATAGRAM_RECEIVES: [Receive; 5] =
    [Receive::Recv, Receive::Readv(3), Receive::Preadv2, Receive::RecvMsg, Receive::RecvMmsg(1)];

/// A kind of call that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The call that sent.
    pub send: Send,
    /// The call that received.
    pub receive: Receive,
    /// What they were tried over.
    pub transport: Transport,
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

/// Tries every kind of call over IPv4 and, where there is an address, IPv6. `tell` is told of each at once.
pub fn run(settings: &Settings, tell: &mut dyn FnMut(&Outcome)) -> Result<(Chosen, Vec<Outcome>), TapError> {
    let (mut tap, chosen) = Tap::open(settings)?;
    let mut outcomes = Vec::new();
    let mut attempt = |send, receive, transport, address| {
        let outcome = attempt(&mut tap, send, receive, transport, address)?;
        tell(&outcome);
        outcomes.push(outcome);
        Ok::<_, TapError>(())
    };
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        if address.is_ipv6() && UdpSocket::bind((address, 0)).is_err() {
            continue;
        }
        for send in SENDS {
            attempt(send, Receive::Read, Transport::Tcp, address)?;
        }
        for receive in RECEIVES {
            attempt(Send::Write, receive, Transport::Tcp, address)?;
        }
        for send in DATAGRAM_SENDS {
            attempt(send, Receive::Read, Transport::Udp, address)?;
        }
        for receive in DATAGRAM_RECEIVES {
            attempt(Send::Write, receive, Transport::Udp, address)?;
        }
    }
    tap.close(&mut |_| {})?;
    Ok((chosen, outcomes))
}

/// The byte at a position: no record begins with the same bytes as another.
fn byte(position: u64) -> u8 {
    let mixed = position.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_be_bytes()[0]
}

/// What was told of one end.
#[derive(Default)]
struct End {
    sides: [Side; 2],
    is_closed: bool,
}

fn attempt(
    tap: &mut Tap,
    send: Send,
    receive: Receive,
    transport: Transport,
    address: IpAddr,
) -> Result<Outcome, TapError> {
    let ends = ends(transport, address).map_err(TapError::Trial)?;
    tap.set_rules(&[Rule {
        id: RuleId(1),
        processes: Processes { pids: vec![process::id()], ..Processes::default() },
        networks: Vec::new(),
        ports: vec![ends.port..=ends.port],
        way: None,
        role: None,
        payload: Payload::Full,
        limits: Limits { call: MOST_CALL, ..Limits::default() },
    }])?;
    let bytes = exchange(ends, send, receive).map_err(TapError::Trial)?;
    let mut wrong = 0;
    let mut told: BTreeMap<SocketId, End> = BTreeMap::new();
    let side = |told: &BTreeMap<SocketId, End>, way: Way| {
        let mut sides = told.values().map(|end| end.sides[way as usize]);
        // One end only sends, the other only receives.
        sides.rfind(|side| side.seen + side.unseen.unwrap_or(0) > 0).unwrap_or_default()
    };
    let patience = Instant::now() + PATIENCE;
    loop {
        tap.wait(Duration::from_millis(5)).map_err(TapError::Ring)?;
        tap.read(&mut |event| match event {
            Event::Data(data) => {
                let expected = (data.place.position..).map(byte);
                let differ = data.bytes.iter().zip(expected).filter(|(told, byte)| *told != byte).count();
                wrong += differ as u64;
                let end = told.entry(data.place.socket).or_default();
                if !end.is_closed {
                    let side = &mut end.sides[data.place.way as usize];
                    side.seen += data.bytes.len() as u64;
                    side.captured += data.bytes.len() as u64;
                }
            }
            Event::Gap(gap) => {
                let side = &mut told.entry(gap.place.socket).or_default().sides[gap.place.way as usize];
                side.seen += gap.length;
                side.gaps[gap.reason as usize] += gap.length;
            }
            Event::Closed(closed) => {
                // The kernel's ledger counts.
                let end = End { sides: [closed.sent, closed.received], is_closed: true };
                told.insert(closed.socket, end);
            }
            Event::Opened(_) | Event::Finished(_) => {}
        })?;
        let is_all = match transport {
            Transport::Udp => [Way::Sent, Way::Received].map(|way| side(&told, way).seen) == [bytes; 2],
            _ => told.values().filter(|end| end.is_closed).count() == 2,
        };
        if is_all || Instant::now() >= patience {
            break;
        }
    }
    let [sent, received] = [Way::Sent, Way::Received].map(|way| side(&told, way));
    Ok(Outcome { send, receive, transport, address, bytes, sent, received, wrong })
}

/// Two sockets that are connected with each other, and a port that is theirs alone.
struct Ends {
    kind: Kind,
    port: u16,
}

enum Kind {
    Stream(TcpListener),
    Datagrams([UdpSocket; 2]),
}

fn ends(transport: Transport, address: IpAddr) -> io::Result<Ends> {
    if transport == Transport::Udp {
        let sockets = [UdpSocket::bind((address, 0))?, UdpSocket::bind((address, 0))?];
        sockets[0].connect(sockets[1].local_addr()?)?;
        sockets[1].connect(sockets[0].local_addr()?)?;
        sockets[1].set_read_timeout(Some(PATIENCE))?;
        let port = sockets[1].local_addr()?.port();
        return Ok(Ends { kind: Kind::Datagrams(sockets), port });
    }
    let listener = TcpListener::bind((address, 0))?;
    let port = listener.local_addr()?.port();
    Ok(Ends { kind: Kind::Stream(listener), port })
}

/// Sends all sizes from one end to the other, and returns how many bytes these were.
fn exchange(ends: Ends, send: Send, receive: Receive) -> io::Result<u64> {
    match ends.kind {
        Kind::Datagrams([from, to]) => pass(&from, &to, send, receive),
        Kind::Stream(listener) => {
            let from = TcpStream::connect(listener.local_addr()?)?;
            let (to, _) = listener.accept()?;
            to.set_read_timeout(Some(PATIENCE))?;
            from.set_write_timeout(Some(PATIENCE))?;
            pass(&from, &to, send, receive)
        }
    }
}

fn pass<S: AsFd + Sync>(from: &S, to: &S, send: Send, receive: Receive) -> io::Result<u64> {
    let mut position = 0;
    for size in SIZES {
        let bytes: Vec<u8> = (position..).take(size).map(byte).collect();
        thread::scope(|scope| {
            let sending = scope.spawn(|| send.all(from, &bytes));
            receive.all(to, size)?;
            sending.join().unwrap_or_else(|_| Err(io::Error::other("the thread that sends panicked")))
        })?;
        position += size as u64;
    }
    Ok(position)
}
