//! Calls that say to whom a datagram goes, or ask whom it came from.

use std::{
    ffi::c_void,
    io, mem,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

use nix::sys::socket::{SockaddrLike as _, SockaddrStorage};

/// Most bytes of a datagram that is received.
const ROOM: usize = 256;

/// How datagrams with names are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// `sendto`, `recvfrom`
    Address,
    /// `sendmsg`, `recvmsg`
    Message,
    /// All of them by one `sendmmsg` or `recvmmsg`
    Messages,
}

impl Named {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Address, Self::Message, Self::Messages];

    /// Sends each to its own end.
    pub fn send(self, socket: &UdpSocket, datagrams: &[(SocketAddr, &[u8])]) {
        let names: Vec<_> = datagrams.iter().map(|(to, _)| SockaddrStorage::from(*to)).collect();
        let mut segments: Vec<_> =
            datagrams.iter().map(|(_, bytes)| segment(bytes.as_ptr().cast_mut(), bytes.len())).collect();
        let parts = names.iter().zip(&mut segments);
        let mut headers: Vec<_> = parts
            .map(|(name, segment)| header(name.as_ptr().cast_mut().cast(), name.len(), segment))
            .collect();
        let descriptor = socket.as_raw_fd();
        match self {
            Self::Address => {
                for (to, bytes) in datagrams {
                    assert_eq!(socket.send_to(bytes, to).expect("loopback works"), bytes.len());
                }
            }
            Self::Message => {
                for header in &headers {
                    // SAFETY: the message refers to names and segments that outlive the call.
                    let outcome = unsafe { libc::sendmsg(descriptor, &raw const header.msg_hdr, 0) };
                    assert!(outcome >= 0, "{}", io::Error::last_os_error());
                }
            }
            Self::Messages => {
                let count = count(&headers);
                // SAFETY: as above, and there are as many messages.
                let outcome = unsafe { libc::sendmmsg(descriptor, headers.as_mut_ptr(), count, 0) };
                assert_eq!(u32::try_from(outcome), Ok(count), "{}", io::Error::last_os_error());
            }
        }
    }

    /// Receives so many, and asks of each whom it came from.
    pub fn receive(self, socket: &UdpSocket, number: usize) {
        let mut room = vec![[0_u8; ROOM]; number];
        // SAFETY: zeros are an address of no family.
        let mut names: Vec<libc::sockaddr_storage> = vec![unsafe { mem::zeroed() }; number];
        let length = u32::try_from(size_of::<libc::sockaddr_storage>()).expect("it is small");
        let mut segments: Vec<_> = room.iter_mut().map(|room| segment(room.as_mut_ptr(), ROOM)).collect();
        let parts = names.iter_mut().zip(&mut segments);
        let mut headers: Vec<_> =
            parts.map(|(name, segment)| header((&raw mut *name).cast(), length, segment)).collect();
        let descriptor = socket.as_raw_fd();
        match self {
            Self::Address => {
                for _ in 0..number {
                    socket.recv_from(&mut [0; ROOM]).expect("loopback works");
                }
            }
            Self::Message => {
                for header in &mut headers {
                    // SAFETY: as for `sendmsg`.
                    let outcome = unsafe { libc::recvmsg(descriptor, &raw mut header.msg_hdr, 0) };
                    assert!(outcome >= 0, "{}", io::Error::last_os_error());
                }
            }
            Self::Messages => {
                let (count, null) = (count(&headers), std::ptr::null_mut());
                // SAFETY: as for `sendmmsg`; without a time limit.
                let outcome = unsafe { libc::recvmmsg(descriptor, headers.as_mut_ptr(), count, 0, null) };
                assert_eq!(u32::try_from(outcome), Ok(count), "{}", io::Error::last_os_error());
            }
        }
    }
}

fn count(headers: &[libc::mmsghdr]) -> u32 {
    u32::try_from(headers.len()).expect("they are few")
}

fn segment(bytes: *mut u8, length: usize) -> libc::iovec {
    libc::iovec { iov_base: bytes.cast(), iov_len: length }
}

fn header(name: *mut c_void, length: u32, segment: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: zeros are a message of nothing.
    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
    header.msg_hdr.msg_name = name;
    header.msg_hdr.msg_namelen = length;
    header.msg_hdr.msg_iov = segment;
    header.msg_hdr.msg_iovlen = 1;
    header
}
