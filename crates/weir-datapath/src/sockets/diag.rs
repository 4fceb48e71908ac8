//! Where the walk does not work: the kernel's socket lists (`sock_diag`, else the tables below `/proc/net`), joined by
//! inode with the descriptors in `/proc/PID/fd`.
//!
//! Takes longer, covers only the namespaces that it is told of, and misses the processes that we may not look into.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use thiserror::Error;
use weir_packet::protocol;

use super::open::{Families, Holder, OpenSocket, Raw};

/// The kernel cuts lists into pieces of at most 32 KiB.
const BUFFER: usize = 64 << 10;

/// Why the kernel's socket lists cannot be had.
#[derive(Debug, Error)]
pub enum DiagError {
    /// Asking or reading failed.
    #[error("cannot ask the kernel for its sockets")]
    Netlink(#[from] io::Error),
    /// The kernel answered something else.
    #[error("cannot make sense of the kernel's list of sockets: {0}")]
    Message(String),
}

/// A socket whose holder is not known yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed {
    pub(crate) inode: u64,
    pub(crate) cookie: u64,
    pub(crate) raw: Raw,
}

/// Asks for the sockets of the namespace of the calling thread.
pub(crate) fn list() -> Result<Vec<Listed>, DiagError> {
    let mut listed = Vec::new();
    for family in [AF_INET, AF_INET6] {
        for protocol in [IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP] {
            match dump(family, protocol, &mut listed) {
                // There is no module for that protocol, hence no such sockets.
                Err(DiagError::Netlink(error))
                    if error.raw_os_error() == Some(libc::ENOENT) && protocol != IPPROTO_TCP => {}
                other => other?,
            }
        }
    }
    Ok(listed)
}

fn dump(family: u8, protocol: u8, listed: &mut Vec<Listed>) -> Result<(), DiagError> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    let request = InetRequest {
        family,
        protocol,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        let length = socket.recv(&mut buffer, 0)?;
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| DiagError::Message(error.to_string()))?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io().into()),
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    listed.push(Listed::from_response(&response, protocol));
                }
                _ => {}
            }
            // Messages are padded to four bytes; the last one may lack the padding.
            let taken = (message.header.length as usize).next_multiple_of(4).max(4).min(rest.len());
            rest = &rest[taken..];
        }
    }
}

impl Listed {
    fn from_response(response: &InetResponse, protocol: u8) -> Self {
        let header = &response.header;
        let id = &header.socket_id;
        let is_v6only = response.nlas.iter().any(|nla| matches!(nla, Nla::SkV6Only(true)));
        let families = if header.family == AF_INET6 && !is_v6only { Families::Both } else { Families::Own };
        let raw = Raw {
            protocol: protocol.into(),
            state: header.state,
            local: (id.source_address, id.source_port),
            remote: (id.destination_address, id.destination_port),
            families,
        };
        Self { inode: header.inode.into(), cookie: u64::from_ne_bytes(id.cookie), raw }
    }
}

/// Reads the tables of the namespace of the calling thread. They have no cookies.
pub(crate) fn list_from_proc() -> Vec<Listed> {
    let tables =
        [("tcp", protocol::TCP), ("tcp6", protocol::TCP), ("udp", protocol::UDP), ("udp6", protocol::UDP)];
    let mut listed = Vec::new();
    for (table, protocol) in tables {
        // IPv6 may be off.
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
        listed.extend(text.lines().skip(1).filter_map(|line| parse_proc_line(line, protocol)));
    }
    listed
}

/// `sl local remote state queues timer retransmits uid timeout inode …`, ends in hexadecimal.
fn parse_proc_line(line: &str, protocol: u8) -> Option<Listed> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = parse_proc_end(fields.next()?)?;
    let remote = parse_proc_end(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let inode = fields.nth(5)?.parse().ok()?;
    // The table does not tell whether an IPv6 socket takes IPv4 too; most do.
    let families = if local.0.is_ipv6() { Families::Both } else { Families::Own };
    Some(Listed { inode, cookie: 0, raw: Raw { protocol: protocol.into(), state, local, remote, families } })
}

/// Addresses are printed as 32-bit numbers in the machine's byte order.
fn parse_proc_end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let word = |position: usize| {
        let digits = address.get(position..position + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut octets = [0; 16];
            for (index, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index * 8)?);
            }
            Ipv6Addr::from(octets).into()
        }
        _ => return None,
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?))
}

/// Which processes hold which sockets, by inode, as far as we may look into them.
pub(crate) fn holders() -> HashMap<u64, Vec<Holder>> {
    let mut holders: HashMap<u64, Vec<Holder>> = HashMap::new();
    let Ok(processes) = fs::read_dir("/proc") else { return holders };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let mut holder = None;
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let Some(inode) = target.to_str().and_then(socket_inode) else { continue };
            let holder = *holder.get_or_insert_with(|| read_holder(pid));
            let held_by = holders.entry(inode).or_default();
            if held_by.last() != Some(&holder) {
                held_by.push(holder);
            }
        }
    }
    holders
}

/// Joins sockets with their holders.
pub(crate) fn join(
    listed: &[Listed],
    netns: u32,
    holders: &HashMap<u64, Vec<Holder>>,
) -> impl Iterator<Item = OpenSocket> {
    listed.iter().flat_map(move |socket| {
        let held_by = holders.get(&socket.inode).map(Vec::as_slice).unwrap_or_default();
        held_by.iter().filter_map(move |holder| OpenSocket::new(&socket.raw, socket.cookie, netns, *holder))
    })
}

fn socket_inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn read_holder(pid: u32) -> Holder {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    parse_stat(&stat, pid)
}

/// `pid (command) state …`, with the start time as field 22. The command may contain blanks and brackets.
fn parse_stat(stat: &str, pid: u32) -> Holder {
    let (head, rest) = stat.rsplit_once(')').unwrap_or_default();
    let name = head.split_once('(').map_or("", |(_, name)| name);
    let mut command = [0; 16];
    // The last byte stays zero.
    for (place, byte) in command[..15].iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    let started = rest.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok()).unwrap_or(0);
    Holder { started, pid, command }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_tables_are_read() {
        let line = "   0: 0100007F:1F90 0200007F:0035 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1";
        let listed = parse_proc_line(line, protocol::TCP).unwrap();
        assert_eq!(listed.inode, 12345);
        assert_eq!(listed.raw.local, ("127.0.0.1".parse().unwrap(), 8080));
        assert_eq!(listed.raw.remote, ("127.0.0.2".parse().unwrap(), 53));
        let line = " 1: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A \
                    00000000:00000000 00:00000000 00000000 0 0 77 1";
        let listed = parse_proc_line(line, protocol::TCP).unwrap();
        assert_eq!(listed.raw.local, ("::1".parse().unwrap(), 22));
        assert_eq!((listed.inode, listed.raw.state), (77, 10));
    }

    #[test]
    fn what_is_no_line_is_skipped() {
        for line in
            ["", "sl local", "0: 0100007F 0200007F:0035 01", "0: zz00007F:1F90 0200007F:0035 01 a b c d e 1"]
        {
            assert!(parse_proc_line(line, protocol::TCP).is_none(), "{line}");
        }
    }

    #[test]
    fn command_and_start_come_out_of_stat_whatever_the_command_is() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        for (name, expect) in
            [("nginx", "nginx"), ("a) S (b", "a) S (b"), ("sixteen-letters!", "sixteen-letters")]
        {
            let holder = parse_stat(&format!("7 ({name}) {fields}"), 7);
            assert_eq!(holder.command.split(|&byte| byte == 0).next().unwrap(), expect.as_bytes());
            assert_eq!((holder.started, holder.pid), (4242, 7));
        }
        assert_eq!(parse_stat("", 7).started, 0);
    }

    #[test]
    fn links_of_descriptors_tell_inodes() {
        assert_eq!(socket_inode("socket:[42]"), Some(42));
        assert_eq!(socket_inode("pipe:[42]"), None);
        assert_eq!(socket_inode("/tmp/socket:[42]"), None);
    }
}
