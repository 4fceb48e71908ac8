//! Many UDP flows, with an exact count of each.
//!
//! The flows lead to networks that nobody has (198.18.0.0/16 and `2001:2:0:1::/64`, reserved for such tests), by a router
//! that does not exist: the frames pass the wire with a link-layer address that is not the far end's, and are dropped
//! there as soon as it has counted them. Dropping by a route would answer now and then: under load IPv6 falls back to
//! "unreachable" even for a black hole.

use std::{
    io::IoSlice,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

use super::Sent;
use crate::VethEnd;

/// Datagrams handed over in one system call.
const BATCH: usize = 64;
/// Destination ports of the flows count up from here.
const FIRST_PORT: u16 = 1024;
/// Link-layer address of the router that does not exist.
const NOBODY: &str = "02:00:00:00:ff:fe";

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct ManyFlows {
    /// By IPv6 instead of IPv4.
    pub ipv6: bool,
    /// Threads, each with a socket and a source port of its own.
    pub threads: u16,
    /// Flows of each thread, by destination port; at most 64,511.
    pub flows_a_thread: u16,
    /// Bytes of payload of each datagram.
    pub payload: usize,
}

/// How long to send.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// This many datagrams of each flow.
    Rounds(u64),
    /// Whole rounds until this much time has passed.
    Elapsed(Duration),
}

/// What one thread sent: `rounds` datagrams of each of its flows.
#[derive(Clone, Copy, Debug)]
pub struct SentByThread {
    /// Address and port that it sent from.
    pub source: SocketAddr,
    /// Address that it sent to.
    pub destination: IpAddr,
    /// Destination port of its first flow; the others follow.
    pub first_port: u16,
    /// Number of flows.
    pub flows: u16,
    /// Datagrams of each flow.
    pub rounds: u64,
    /// All of it.
    pub sent: Sent,
}

impl ManyFlows {
    /// Sends from one end of a wire to its other end. When it returns, everything passed the wire.
    pub fn run(&self, from: &VethEnd, to: &VethEnd, until: Until) -> Vec<SentByThread> {
        let destination = self.route(from, to);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads)
                .map(|_| {
                    let socket = from.namespace.run(|| UdpSocket::bind((from.address(self.ipv6), 0)));
                    let socket = socket.expect("the address is ours");
                    scope.spawn(move || self.send(&socket, destination, until))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a sender does not panic")).collect()
        })
    }

    fn route(&self, from: &VethEnd, to: &VethEnd) -> IpAddr {
        let (network, destination, router) = match to.address(self.ipv6) {
            IpAddr::V4(far) => {
                let [a, b, c, _] = far.octets();
                ("198.18.0.0/16", IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)), IpAddr::V4([a, b, c, 254].into()))
            }
            IpAddr::V6(far) => {
                let router = IpAddr::V6(Ipv6Addr::from_bits(far.to_bits() | 0xfffe));
                ("2001:2:0:1::/64", IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 1)), router)
            }
        };
        from.namespace.ip(&format!("neigh replace {router} lladdr {NOBODY} nud permanent dev {}", from.name));
        from.namespace.ip(&format!("route replace {network} via {router} dev {}", from.name));
        destination
    }

    fn send(&self, socket: &UdpSocket, destination: IpAddr, until: Until) -> SentByThread {
        let start = Instant::now();
        let payload = vec![0x5a; self.payload];
        let slices = [[IoSlice::new(&payload)]; BATCH];
        let ports = FIRST_PORT..FIRST_PORT + self.flows_a_thread;
        let addresses: Vec<Option<SockaddrStorage>> =
            ports.map(|port| Some(SockaddrStorage::from(SocketAddr::new(destination, port)))).collect();
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        let mut rounds = 0;
        loop {
            match until {
                Until::Rounds(wanted) if rounds >= wanted => break,
                Until::Elapsed(time) if start.elapsed() >= time => break,
                _ => {}
            }
            let mut left = &addresses[..];
            while !left.is_empty() {
                let batch = &left[..left.len().min(BATCH)];
                let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, batch, [], MsgFlags::empty());
                left = &left[sent.expect("a wire of our own takes everything").count()..];
            }
            rounds += 1;
        }
        let datagrams = rounds * u64::from(self.flows_a_thread);
        SentByThread {
            source: socket.local_addr().expect("it is bound"),
            destination,
            first_port: FIRST_PORT,
            flows: self.flows_a_thread,
            rounds,
            sent: Sent { datagrams, payload_bytes: datagrams * self.payload as u64 },
        }
    }
}
