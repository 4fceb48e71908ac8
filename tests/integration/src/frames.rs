//! Frames of our own making, sent through a packet socket: any header, any tuple, exact counts.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr::NonNull,
};

use weir_packet::{Details, Tuple, ipv4_words, protocol};

use crate::{Namespace, VethEnd};

/// Frames handed to the kernel in one system call.
const BATCH: usize = 64;

/// Sends frames out of an interface as they are. They pass TC egress like any other packet.
#[derive(Debug)]
pub struct FrameSender {
    socket: OwnedFd,
}

impl FrameSender {
    /// Opens a sender for one end of a wire.
    pub fn new(end: &VethEnd) -> Self {
        let index = i32::try_from(end.index).expect("interface indexes are small");
        let socket = end.namespace.run(|| open(index)).expect("root may open packet sockets");
        Self { socket }
    }

    /// Sends all frames, in order.
    pub fn send(&self, frames: &[Vec<u8>]) {
        for batch in frames.chunks(BATCH) {
            let mut parts: Vec<libc::iovec> = batch
                .iter()
                .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
                .collect();
            let mut messages: Vec<libc::mmsghdr> = parts
                .iter_mut()
                .map(|part| {
                    // SAFETY: all zeroes is a valid message header.
                    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                    message.msg_hdr.msg_iov = part;
                    message.msg_hdr.msg_iovlen = 1;
                    message
                })
                .collect();
            let mut sent = 0;
            while sent < messages.len() {
                let rest = &mut messages[sent..];
                let count = u32::try_from(rest.len()).expect("a batch is short");
                // SAFETY: the headers point to parts and frames that outlive the call.
                let outcome = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), count, 0) };
                if let Ok(count) = usize::try_from(outcome) {
                    sent += count;
                } else {
                    let error = io::Error::last_os_error();
                    assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "sending frames: {error}");
                }
            }
        }
    }
}

/// Sends frames of which only the link header lies in the linear part of the packet: the rest is a page of a ring that is
/// shared with the kernel (`PACKET_TX_RING`). One frame at a time; who sends the next one has to know that the last one
/// arrived.
#[derive(Debug)]
pub struct PageSender {
    socket: OwnedFd,
    page: NonNull<libc::c_void>,
}

impl PageSender {
    const BYTES: u32 = 4096;

    /// Opens a sender for an interface.
    pub fn new(namespace: &Namespace, interface: &str) -> Self {
        let version = libc::c_int::try_from(libc::tpacket_versions::TPACKET_V2 as u32).expect("it is 1");
        let ring = libc::tpacket_req {
            tp_block_size: Self::BYTES,
            tp_block_nr: 1,
            tp_frame_size: Self::BYTES,
            tp_frame_nr: 1,
        };
        let socket = namespace.run(|| {
            let index = nix::net::if_::if_nametoindex(interface).expect("it is there");
            open(i32::try_from(index).expect("interface indexes are small"))
                .expect("root may open packet sockets")
        });
        set(&socket, libc::PACKET_VERSION, &version);
        set(&socket, libc::PACKET_TX_RING, &ring);
        let (access, descriptor) = (libc::PROT_READ | libc::PROT_WRITE, socket.as_raw_fd());
        // SAFETY: a new mapping of the ring, which has this length.
        let page = unsafe {
            libc::mmap(std::ptr::null_mut(), Self::BYTES as usize, access, libc::MAP_SHARED, descriptor, 0)
        };
        assert_ne!(page, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        Self { socket, page: NonNull::new(page).expect("it is mapped") }
    }

    /// Sends a frame that fits the interface.
    pub fn send(&mut self, frame: &[u8]) {
        // Status and length are the first words of the header; the frame follows it (TPACKET2_HDRLEN without an address).
        const HEADER: usize = size_of::<libc::tpacket2_hdr>();
        let length = u32::try_from(frame.len()).expect("it is short");
        // SAFETY: the page is ours and has this length; the kernel reads it only when it is asked to.
        let page = unsafe { std::slice::from_raw_parts_mut(self.page.cast().as_ptr(), Self::BYTES as usize) };
        page[HEADER..HEADER + frame.len()].copy_from_slice(frame);
        page[4..8].copy_from_slice(&length.to_ne_bytes());
        page[..4].copy_from_slice(&libc::TP_STATUS_SEND_REQUEST.to_ne_bytes());
        // SAFETY: no bytes are handed over.
        let outcome = unsafe { libc::send(self.socket.as_raw_fd(), std::ptr::null(), 0, 0) };
        let sent = libc::ssize_t::try_from(frame.len()).expect("it is short");
        assert_eq!(outcome, sent, "sending a frame: {}", io::Error::last_os_error());
    }
}

impl Drop for PageSender {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody uses it any more.
        unsafe { libc::munmap(self.page.as_ptr(), Self::BYTES as usize) };
    }
}

/// Sets an option of a packet socket.
fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) {
    let length = libc::socklen_t::try_from(size_of::<T>()).expect("it is short");
    let (descriptor, value) = (socket.as_raw_fd(), std::ptr::from_ref(value));
    // SAFETY: the value outlives the call and has the length given.
    let outcome = unsafe { libc::setsockopt(descriptor, libc::SOL_PACKET, option, value.cast(), length) };
    assert_eq!(outcome, 0, "{}", io::Error::last_os_error());
}

fn open(index: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers. Protocol 0: nothing is received.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all zeroes is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("it is 17");
    address.sll_ifindex = index;
    let length = libc::socklen_t::try_from(size_of_val(&address)).expect("it is short");
    // SAFETY: the address outlives the call and has the length given.
    let outcome = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// A destination that no interface has, so that nobody answers.
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0xee, 0xee];

/// A UDP datagram over IPv4 in an Ethernet frame to nobody, with `payload` bytes of zeroes.
pub fn udp(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), payload: usize) -> Vec<u8> {
    let udp_length = u16::try_from(8 + payload).expect("a datagram");
    let mut frame = Vec::with_capacity(42 + payload);
    frame.extend(NOBODY);
    frame.extend([2, 0, 0, 0, 0, 1, 0x08, 0x00]);
    frame.extend([0x45, 0]);
    frame.extend((20 + udp_length).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, protocol::UDP, 0, 0]);
    frame.extend(source.0.octets());
    frame.extend(destination.0.octets());
    frame.extend(source.1.to_be_bytes());
    frame.extend(destination.1.to_be_bytes());
    frame.extend(udp_length.to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(frame.len() + payload, 0);
    frame
}

/// The tuple of such a datagram.
pub fn udp_tuple(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Tuple {
    Tuple::new(
        ipv4_words(source.0.octets()),
        ipv4_words(destination.0.octets()),
        Details::new(false, protocol::UDP).with_ports(source.1, destination.1),
    )
}

/// The same frame with VLAN tags (TPID and TCI each) behind the addresses, outermost first.
pub fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    [addresses, tags.as_flattened(), rest].concat()
}

/// An ARP request to nobody.
pub fn arp() -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(NOBODY);
    frame.extend([2, 0, 0, 0, 0, 1, 0x08, 0x06]);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.resize(42, 0);
    frame
}
