//! AF_PACKET sockets as the alternative hook: one per interface, which only runs a filter and never receives.

#![expect(clippy::cast_possible_truncation, reason = "constants and structure sizes of libc are small")]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{MapData, ProgramArray},
    programs::ProgramError,
};

use crate::object::{LoadError, take};

/// Programs of this hook: those that count, and those that are attached and jump to them.
pub(super) const PROGRAMS: [&str; 4] = ["weir_socket_l2", "weir_socket_l3", "weir_jump_l2", "weir_jump_l3"];

/// Tells the attached filters where to jump. The kernel empties it when it is dropped.
pub(super) struct JumpTable {
    _table: ProgramArray<MapData>,
}

impl JumpTable {
    /// Fills the table with the loaded counting programs.
    pub(super) fn fill(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Map { name: "JUMPS", source };
        let mut table = ProgramArray::try_from(take(ebpf, "JUMPS")?).map_err(failed)?;
        for (index, name) in (0..).zip(&PROGRAMS[..2]) {
            let refused = |source| LoadError::Program { name, source };
            let program = ebpf.program(name).ok_or(ProgramError::NotLoaded).map_err(refused)?;
            table.set(index, program.fd().map_err(refused)?, 0).map_err(failed)?;
        }
        Ok(Self { _table: table })
    }
}

/// A packet socket of one interface. Closing it detaches the program.
pub(super) struct PacketSocket {
    socket: OwnedFd,
    ifindex: u32,
}

impl PacketSocket {
    /// Opens a socket that receives nothing yet, so that a filter can be attached before the first packet.
    pub(super) fn open(ifindex: u32) -> io::Result<Self> {
        // SAFETY: no pointers. Protocol 0: no packets until the socket is bound to one.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Self { socket: unsafe { OwnedFd::from_raw_fd(socket) }, ifindex })
    }

    /// The descriptor, for attaching the filter.
    pub(super) fn as_fd(&self) -> &OwnedFd {
        &self.socket
    }

    /// Starts: every packet of the interface passes the filter from now on.
    pub(super) fn bind(&self) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: self.ifindex.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the address outlives the call and has the length given.
        let outcome = unsafe {
            libc::bind(
                self.socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Asks the device for packets to other addresses as well, until the socket is closed.
    pub(super) fn promiscuous(&self) -> io::Result<()> {
        let request = libc::packet_mreq {
            mr_ifindex: self.ifindex.cast_signed(),
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        // SAFETY: the request outlives the call and has the length given.
        let outcome = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const request).cast(),
                size_of::<libc::packet_mreq>() as libc::socklen_t,
            )
        };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
