//! [`OpenSocket`]: an IPv4 or IPv6 socket that a process holds open, however it was found.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weir_common::sockets::{ProcessRecord, SocketRecord};
use weir_packet::protocol;

/// A descriptor of a socket, with what can be used to recognise its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenSocket {
    /// Cookie; 0 where it is not known or was never asked for.
    pub(crate) cookie: u64,
    /// Inode number of the network namespace; 0 where it is not known.
    pub(crate) netns: u32,
    /// Who holds it.
    pub(crate) holder: Holder,
    /// Number of the protocol (IANA).
    pub(crate) protocol: u8,
    /// Our end. The address is unspecified where any will do.
    pub(crate) local: SocketAddr,
    /// The other end, if there is one.
    pub(crate) remote: Option<SocketAddr>,
    /// What it is for.
    pub(crate) use_: Use,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// It has one other end.
    Connected,
    /// Waits for connections, over IPv4 as well if its address is the unspecified one of IPv6.
    Listening(Families),
    /// Takes datagrams from anybody.
    Bound(Families),
    /// Neither: not bound, not connected, or on its way between.
    Idle,
}

/// Which families a socket that is bound to any address accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Families {
    /// The family of its own address.
    Own,
    /// Both: an IPv6 socket without `IPV6_V6ONLY`.
    Both,
}

/// A process as a socket's record names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Holder {
    /// When it started, in a unit that only compares with others from the same source.
    pub(crate) started: u64,
    /// Process identifier in our own pid namespace.
    pub(crate) pid: u32,
    /// Its command name, terminated by zero; all zero where the source does not tell.
    pub(crate) command: [u8; 16],
}

/// States of sockets that matter here (`include/net/tcp_states.h`); UDP uses 1 for connected and 7 otherwise.
pub(crate) mod state {
    #[cfg(test)]
    pub(crate) const CLOSE: u8 = 7;
    pub(crate) const LISTEN: u8 = 10;
}

/// Multipath TCP, which is TCP on the wire (`IPPROTO_MPTCP`).
const MULTIPATH_TCP: u16 = 262;
#[expect(clippy::cast_possible_truncation, reason = "the constant is 10")]
pub(crate) const IPV6_FAMILY: u8 = libc::AF_INET6 as u8;

/// What a source says of a socket before it is interpreted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw {
    pub(crate) protocol: u16,
    pub(crate) state: u8,
    pub(crate) local: (IpAddr, u16),
    pub(crate) remote: (IpAddr, u16),
    pub(crate) families: Families,
}

impl OpenSocket {
    /// Interprets ends and state. `None` for protocols without ports.
    pub(crate) fn new(raw: &Raw, cookie: u64, netns: u32, holder: Holder) -> Option<Self> {
        let protocol = match raw.protocol {
            MULTIPATH_TCP => protocol::TCP,
            other => u8::try_from(other).ok()?,
        };
        if !matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP) {
            return None;
        }
        let end = |(address, port): (IpAddr, u16)| SocketAddr::new(address.to_canonical(), port);
        let (local, remote) = (end(raw.local), end(raw.remote));
        // UDP-Lite and SCTP one-to-many sockets are used like UDP, but have states of their own: only TCP is told apart.
        let use_ = if raw.state == state::LISTEN {
            Use::Listening(raw.families)
        } else if remote.port() != 0 {
            Use::Connected
        } else if local.port() == 0 || protocol == protocol::TCP {
            Use::Idle
        } else {
            Use::Bound(raw.families)
        };
        let remote = (use_ == Use::Connected).then_some(remote);
        Some(Self { cookie, netns, holder, protocol, local, remote, use_ })
    }

    /// Interprets a record of the walk. `v6only_mask` selects the flag in its byte.
    pub(crate) fn from_record(record: &SocketRecord, v6only_mask: u8) -> Option<Self> {
        let is_v6 = record.family == u16::from(IPV6_FAMILY);
        let address = |bytes: [u8; 16]| {
            if is_v6 {
                IpAddr::V6(Ipv6Addr::from(bytes))
            } else {
                IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
            }
        };
        let raw = Raw {
            protocol: record.protocol,
            state: record.state,
            local: (address(record.local), record.local_port),
            remote: (address(record.remote), u16::from_be(record.remote_port)),
            families: if is_v6 && record.v6only & v6only_mask == 0 { Families::Both } else { Families::Own },
        };
        Self::new(&raw, record.cookie, record.netns, Holder::from(&record.process))
    }
}

impl From<&ProcessRecord> for Holder {
    fn from(record: &ProcessRecord) -> Self {
        Self { started: record.started, pid: record.pid, command: record.command }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(family: i32, protocol: u16, state: u8) -> SocketRecord {
        SocketRecord {
            cookie: 7,
            netns: 9,
            family: u16::try_from(family).unwrap(),
            protocol,
            state,
            local_port: 80,
            ..SocketRecord::default()
        }
    }

    #[test]
    fn a_record_is_read_in_its_byte_orders() {
        let mut record = record(libc::AF_INET, 6, 1);
        record.local[..4].copy_from_slice(&[10, 0, 0, 1]);
        record.remote[..4].copy_from_slice(&[10, 0, 0, 2]);
        record.remote_port = 4096_u16.to_be();
        let socket = OpenSocket::from_record(&record, 0x20).unwrap();
        assert_eq!(socket.local, "10.0.0.1:80".parse().unwrap());
        assert_eq!(socket.remote, Some("10.0.0.2:4096".parse().unwrap()));
        assert_eq!((socket.use_, socket.protocol), (Use::Connected, protocol::TCP));
    }

    #[test]
    fn what_a_socket_is_for_follows_from_state_and_ends() {
        for (family, protocol, state, v6only, expect) in [
            (libc::AF_INET, 6, state::LISTEN, 0, Use::Listening(Families::Own)),
            (libc::AF_INET6, 6, state::LISTEN, 0, Use::Listening(Families::Both)),
            (libc::AF_INET6, 6, state::LISTEN, 0x20, Use::Listening(Families::Own)),
            (libc::AF_INET6, MULTIPATH_TCP, state::LISTEN, 0xdf, Use::Listening(Families::Both)),
            (libc::AF_INET, 6, state::CLOSE, 0, Use::Idle),
            (libc::AF_INET, 17, state::CLOSE, 0, Use::Bound(Families::Own)),
            (libc::AF_INET6, 17, state::CLOSE, 0, Use::Bound(Families::Both)),
        ] {
            let record = SocketRecord { v6only, ..record(family, protocol, state) };
            let socket = OpenSocket::from_record(&record, 0x20).unwrap();
            assert_eq!(socket.use_, expect, "{record:?}");
            assert_eq!(socket.remote, None);
        }
        let unbound = SocketRecord { local_port: 0, ..record(libc::AF_INET, 17, state::CLOSE) };
        assert_eq!(OpenSocket::from_record(&unbound, 0).unwrap().use_, Use::Idle);
    }

    #[test]
    fn ipv4_over_an_ipv6_socket_is_ipv4() {
        let mut record = record(libc::AF_INET6, 6, 1);
        record.local = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
        record.remote = record.local;
        record.remote_port = 1;
        let socket = OpenSocket::from_record(&record, 0x20).unwrap();
        assert_eq!(socket.local, "127.0.0.1:80".parse().unwrap());
        assert_eq!(socket.remote, Some("127.0.0.1:256".parse().unwrap()));
    }

    #[test]
    fn sockets_without_ports_are_left_out() {
        assert_eq!(OpenSocket::from_record(&record(libc::AF_INET, 1, 1), 0), None);
        assert_eq!(OpenSocket::from_record(&record(libc::AF_INET, 999, 1), 0), None);
    }
}
