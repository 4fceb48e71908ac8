//! Records of the kernel as events.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use weir_common::tap::{self, ClosedRecord, ControlHeader, Ends, OpenedRecord, RecordHeader, role};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{
    error::TapError,
    event::{
        Closed, Data, Event, Finished, Gap, GapReason, Opened, Place, Process, Side, SocketId, Transport,
    },
    rule::{Role, RuleId, Way},
};

/// A record of the ring of bytes. `None` for what trials of the hooks left behind.
#[inline]
pub(super) fn bytes(record: &[u8]) -> Result<(u64, Event<'_>), TapError> {
    let cannot_be = || TapError::Record(record.len());
    let (header, rest) = RecordHeader::read_from_prefix(record).ok().ok_or_else(cannot_be)?;
    let place = Place {
        socket: SocketId(header.socket),
        time_ns: header.time_ns,
        way: way(header.way),
        position: header.position,
        rule: RuleId(header.rule.into()),
        pid: header.pid,
        tid: header.tid,
        operation: header.operation,
        offset: header.offset,
        peer: (header.has_peer != 0).then(|| end(header.peer, header.peer_port)),
    };
    let event = match header.kind {
        tap::DATA => {
            let bytes = rest.get(..header.captured as usize).ok_or_else(cannot_be)?;
            Event::Data(Data { place, bytes })
        }
        tap::GAP => {
            let (reason, _) = GapReason::ALL.get(usize::from(header.reason)).ok_or_else(cannot_be)?;
            Event::Gap(Gap { place, length: header.length, reason: *reason })
        }
        _ => return Err(cannot_be()),
    };
    Ok((header.time_ns, event))
}

/// A control record, with its time.
pub(super) fn control(record: &[u8]) -> Result<(u64, Event<'static>), TapError> {
    let cannot_be = || TapError::Record(record.len());
    let (header, _) = ControlHeader::read_from_prefix(record).ok().ok_or_else(cannot_be)?;
    let event = match header.kind {
        tap::OPENED => {
            let (record, _) = OpenedRecord::read_from_prefix(record).ok().ok_or_else(cannot_be)?;
            Event::Opened(opened(&record))
        }
        tap::FINISHED => Event::Finished(Finished {
            socket: SocketId(header.socket),
            time_ns: header.time_ns,
            way: if header.detail == 0 { Way::Sent } else { Way::Received },
        }),
        tap::CLOSED => {
            let (record, _) = ClosedRecord::read_from_prefix(record).ok().ok_or_else(cannot_be)?;
            let total = |way: usize| (record.header.detail != 0).then(|| record.totals[way]);
            Event::Closed(Closed {
                socket: SocketId(header.socket),
                time_ns: header.time_ns,
                sent: side(&record.sides[0], total(0)),
                received: side(&record.sides[1], total(1)),
            })
        }
        _ => return Err(cannot_be()),
    };
    Ok((header.time_ns, event))
}

fn way(number: u8) -> Way {
    if number == tap::SENT { Way::Sent } else { Way::Received }
}

/// A ledger with what the kernel says was moved altogether.
pub(super) fn side(side: &tap::Side, total: Option<u64>) -> Side {
    Side {
        seen: side.seen,
        captured: side.captured,
        lost: side.lost,
        gaps: side.gaps,
        untold: side.untold,
        rejected: side.rejected,
        unseen: total.map(|total| total.saturating_sub(side.seen + side.rejected)),
    }
}

/// What an opening is about.
pub(super) fn opened(record: &OpenedRecord) -> Opened {
    let Ends { local, remote, local_port, remote_port, family, protocol } = record.ends;
    let is_unix = i32::from(family) == libc::AF_UNIX;
    let is_datagram = matches!(i32::from(protocol), libc::IPPROTO_UDP | libc::IPPROTO_UDPLITE);
    let mut command = [0; 16];
    command.copy_from_slice(record.caller.command.as_bytes());
    Opened {
        socket: SocketId(record.header.socket),
        time_ns: record.header.time_ns,
        process: Process {
            pid: record.caller.pid,
            tid: record.caller.tid,
            command,
            cgroup: record.caller.cgroup,
            user: record.caller.user,
        },
        transport: match (is_unix, is_datagram) {
            (true, _) => Transport::Unix,
            (false, true) => Transport::Udp,
            (false, false) => Transport::Tcp,
        },
        local: end(local, local_port),
        remote: (remote_port != 0).then(|| end(remote, remote_port)),
        role: match record.role {
            role::CLIENT => Some(Role::Client),
            role::SERVER => Some(Role::Server),
            _ => None,
        },
        is_existing: record.is_existing != 0,
        is_late: record.is_late != 0,
        rule: RuleId(record.rule.into()),
    }
}

/// Mapped addresses become those of IPv4.
fn end(address: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(address)).to_canonical(), port)
}
