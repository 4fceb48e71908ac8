//! Traffic with exact counts, from sockets that live in given namespaces.

mod many_flows;

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};

pub use many_flows::{ManyFlows, SentByThread, Until};

use crate::{Namespace, VethEnd};

/// What was handed to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes of payload.
    pub payload_bytes: u64,
}

/// A UDP flow: a bound and connected socket at both ends, so that nobody answers with ICMP errors.
///
/// What is not received stays in the socket's buffer and is dropped there, behind every interface counter.
#[derive(Debug)]
pub struct UdpFlow {
    /// The sending socket, connected to the receiver.
    pub sender: UdpSocket,
    /// The receiving socket, connected to the sender.
    pub receiver: UdpSocket,
}

impl UdpFlow {
    /// Opens a flow between two ends of a wire, with ports that the kernel chooses.
    pub fn open(from: &VethEnd, to: &VethEnd, ipv6: bool) -> Self {
        Self::between((&from.namespace, from.address(ipv6)), (&to.namespace, to.address(ipv6)))
    }

    /// Opens a flow between two addresses of two namespaces (or of one), with ports that the kernel chooses.
    pub fn between(from: (&Namespace, IpAddr), to: (&Namespace, IpAddr)) -> Self {
        let bind = |(namespace, address): (&Namespace, IpAddr)| {
            namespace.run(|| UdpSocket::bind((address, 0))).expect("the address is ours")
        };
        let (sender, receiver) = (bind(from), bind(to));
        sender.connect(receiver.local_addr().expect("it is bound")).expect("there is a route");
        receiver.connect(sender.local_addr().expect("it is bound")).expect("there is a route");
        Self { sender, receiver }
    }

    /// Address and port of the sender.
    pub fn source(&self) -> SocketAddr {
        self.sender.local_addr().expect("it is bound")
    }

    /// Address and port of the receiver.
    pub fn destination(&self) -> SocketAddr {
        self.receiver.local_addr().expect("it is bound")
    }

    /// Sends datagrams of `payload` bytes each. When it returns, all of them passed a veth wire.
    pub fn send(&self, datagrams: u64, payload: usize) -> Sent {
        let buffer = vec![0x5a; payload];
        for _ in 0..datagrams {
            self.sender.send(&buffer).expect("a wire of our own takes everything");
        }
        Sent { datagrams, payload_bytes: datagrams * payload as u64 }
    }

    /// Sends super-packets: each is handed over once and stands for `segments` datagrams of `payload` bytes. With all
    /// of its headers a super-packet has less than 64 KiB.
    pub fn send_super(&self, supers: u64, segments: usize, payload: u16) -> Sent {
        setsockopt(&self.sender, UdpGsoSegment, &i32::from(payload)).expect("since 4.18");
        let sent = self.send(supers, segments * usize::from(payload));
        setsockopt(&self.sender, UdpGsoSegment, &0).expect("since 4.18");
        Sent { datagrams: supers * segments as u64, ..sent }
    }

    /// Sends one datagram back, from the receiver to the sender.
    pub fn reply(&self, payload: usize) -> Sent {
        self.receiver.send(&vec![0xa5; payload]).expect("a wire of our own takes everything");
        Sent { datagrams: 1, payload_bytes: payload as u64 }
    }
}

/// The two ends of a TCP connection that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpTalk {
    /// Address and port of the client.
    pub client: SocketAddr,
    /// Address and port of the server.
    pub server: SocketAddr,
}

/// One TCP connection: the client sends `request` bytes, the server answers with `response` bytes, both close. When it
/// returns, both ends have read everything.
pub fn tcp_talk(client: &VethEnd, server: &VethEnd, ipv6: bool, request: usize, response: usize) -> TcpTalk {
    let listener =
        server.namespace.run(|| TcpListener::bind((server.address(ipv6), 0))).expect("the address is ours");
    let server_address = listener.local_addr().expect("it is bound");
    thread::scope(|scope| {
        let serving = scope.spawn(move || -> io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.read_exact(&mut vec![0; request])?;
            stream.write_all(&vec![0xa5; response])?;
            stream.shutdown(std::net::Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        });
        let mut stream =
            client.namespace.run(|| TcpStream::connect(server_address)).expect("the server listens");
        let talk = TcpTalk { client: stream.local_addr().expect("it is connected"), server: server_address };
        stream.write_all(&vec![0x5a; request]).expect("the server reads");
        let mut answer = Vec::with_capacity(response);
        stream.read_to_end(&mut answer).expect("the server answers");
        assert_eq!(answer.len(), response, "the answer is cut short");
        drop(stream);
        serving.join().expect("the server does not panic").expect("the server succeeds");
        talk
    })
}
