//! Whether an interface cuts up or joins packets itself, by ethtool's old ioctl: rtnetlink does not say.

use std::{io, mem, os::fd::AsRawFd, ptr};

use netlink_sys::Socket;

const ETHTOOL_GTSO: u32 = 0x1e;
const ETHTOOL_GGRO: u32 = 0x2b;

/// What the kernel does to packets between the interface and the hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// The device takes TCP super-packets whole. If not, they are cut up after the egress hook.
    pub tso: bool,
    /// Packets are joined to super-packets before the ingress hook.
    pub gro: bool,
}

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Asks about the interface of this name, in the namespace of the socket.
pub(super) fn read(socket: &Socket, name: &str) -> io::Result<Offloads> {
    Ok(Offloads {
        tso: value(socket, name, ETHTOOL_GTSO)? != 0,
        gro: value(socket, name, ETHTOOL_GGRO)? != 0,
    })
}

fn value(socket: &Socket, name: &str, command: u32) -> io::Result<u32> {
    let mut value = EthtoolValue { command, data: 0 };
    // SAFETY: ifreq is plain data, for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = ptr::from_mut(&mut value).cast();
    // SAFETY: the socket is open; request and the value that it points to outlive the call, and these two commands write
    // no more than one such value.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
}
