//! Known traffic over the loopback interface of the calling thread's namespace.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
};

use weir_flow::{Count, Tuple};
use weir_packet::{Details, ipv4_words, ipv6_words, protocol};

const DATAGRAMS: u64 = 500;
const PAYLOAD: usize = 333;
const TCP_BYTES: usize = 4 << 20;

/// A flow that was sent.
pub(super) struct Sent {
    pub(super) tuple: Tuple,
    pub(super) count: Count,
}

/// Sets the loopback interface up, which a new namespace has down.
pub(super) fn bring_up_loopback() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: all zeroes is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    #[expect(clippy::cast_possible_truncation, reason = "flags of interfaces have 16 bits in this request")]
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    request.ifr_ifru.ifru_flags = flags;
    // C libraries differ in the type of a request number.
    let set_flags = libc::SIOCSIFFLAGS as libc::Ioctl;
    // SAFETY: the request outlives the call and names an interface.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), set_flags, &raw const request) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends datagrams to a bound socket of our own.
pub(super) fn udp(is_ipv6: bool) -> io::Result<Sent> {
    let (address, ip_header): (IpAddr, u64) =
        if is_ipv6 { (Ipv6Addr::LOCALHOST.into(), 40) } else { (Ipv4Addr::LOCALHOST.into(), 20) };
    let receiver = UdpSocket::bind((address, 0))?;
    let sender = UdpSocket::bind((address, 0))?;
    sender.connect(receiver.local_addr()?)?;
    for _ in 0..DATAGRAMS {
        sender.send(&[0x5a; PAYLOAD])?;
    }
    let length = 14 + ip_header + 8 + PAYLOAD as u64;
    Ok(Sent {
        tuple: tuple(sender.local_addr()?, receiver.local_addr()?),
        count: Count { packets: DATAGRAMS, bytes: DATAGRAMS * length },
    })
}

/// Sends a few MiB by TCP and returns how many bytes.
pub(super) fn tcp() -> io::Result<u64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    let (mut accepted, _) = listener.accept()?;
    thread::scope(|scope| {
        let reading = scope.spawn(move || accepted.read_to_end(&mut Vec::new()));
        stream.write_all(&vec![0x5a; TCP_BYTES])?;
        drop(stream);
        let read = reading.join().expect("reading into a vector does not panic")?;
        Ok(read as u64)
    })
}

fn tuple(source: SocketAddr, destination: SocketAddr) -> Tuple {
    let words = |address| match address {
        IpAddr::V4(address) => ipv4_words(address.octets()),
        IpAddr::V6(address) => ipv6_words(address.octets()),
    };
    let details = Details::new(source.is_ipv6(), protocol::UDP).with_ports(source.port(), destination.port());
    Tuple::new(words(source.ip()), words(destination.ip()), details)
}
