//! The log format: one line per flow and direction, as packet counters print them.
//!
//! ```text
//! ---
//! [23:33:50] TCP 172.18.0.5->172.18.0.6 55136->6443 [ACK] (len=66) count=1983
//! [23:33:50] ICMP 10.244.2.2->10.244.1.4 type=0 code=0 (len=98) count=45
//! [23:33:50] GRE 10.0.0.1->10.0.0.2 (len=134) count=3
//! [23:33:50] UDP 10.0.0.1->10.0.0.2 fragment (len=1514) count=3
//! [23:33:50] TCP [fd00::1]->[fd00::2] truncated (len=1514) count=3
//! [23:33:50] UDP *->* folded (len=99) count=72
//! ```
//!
//! `len` is the length of the last frame on the wire, `count` the packets since the flow was first seen, the flags
//! are those of the interval, or-ed. `fragment` stands in place of ports for later fragments, `truncated` where the
//! transport header was too deep in the packet, `folded` for flows that no longer fitted the memory. A protocol
//! without a keyword is `IP/253`. IPv6 addresses stand in brackets.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
};

use weir_packet::{Tuple, protocol};

use crate::{
    Detail, Record, Traffic,
    field::{TcpFlags, transport_name},
};

/// Appends `---` and the lines of all `records`, in their order. `time` is the local time of the tick, such as
/// `23:33:50`.
pub fn log_block<'r>(records: impl IntoIterator<Item = &'r Record>, time: &str, out: &mut String) {
    out.push_str("---\n");
    for record in records {
        log_lines(record, time, out);
    }
}

/// Appends one line for each direction of `record` that had packets since the previous record.
pub fn log_lines(record: &Record, time: &str, out: &mut String) {
    let forward = (record.tuple, &record.delta.forward, &record.total.forward);
    let reverse = (record.tuple.reversed(), &record.delta.reverse, &record.total.reverse);
    for (tuple, delta, total) in [forward, reverse] {
        if delta.packets > 0 {
            line(&tuple, record.detail, delta, total, time, out).expect("a string takes any text");
        }
    }
}

fn line(
    tuple: &Tuple,
    detail: Detail,
    delta: &Traffic,
    total: &Traffic,
    time: &str,
    out: &mut String,
) -> fmt::Result {
    write!(out, "[{time}] ")?;
    if detail == Detail::Folded {
        protocol_name(tuple, out)?;
        out.push_str(" *->* folded");
    } else {
        append_conversation(tuple, TcpFlags(delta.tcp_flags), out)?;
    }
    writeln!(out, " (len={}) count={}", delta.last_length, total.packets)
}

/// Appends who talks to whom, as the lines of the log have it: `TCP 172.18.0.5->172.18.0.6 55136->6443 [ACK]`.
pub fn conversation(tuple: &Tuple, tcp_flags: TcpFlags, out: &mut String) {
    append_conversation(tuple, tcp_flags, out).expect("a string takes any text");
}

fn append_conversation(tuple: &Tuple, tcp_flags: TcpFlags, out: &mut String) -> fmt::Result {
    protocol_name(tuple, out)?;
    write!(out, " {}->{}", Host(tuple.source()), Host(tuple.destination()))?;
    if tuple.is_fragment() {
        out.push_str(" fragment");
    } else if tuple.is_truncated() {
        out.push_str(" truncated");
    } else if tuple.has_ports() {
        write!(out, " {}->{}", tuple.source_port(), tuple.destination_port())?;
        if tuple.protocol() == protocol::TCP {
            write!(out, " [{tcp_flags}]")?;
        }
    } else if let Some((kind, code)) = tuple.icmp() {
        write!(out, " type={kind} code={code}")?;
    }
    Ok(())
}

fn protocol_name(tuple: &Tuple, out: &mut String) -> fmt::Result {
    match transport_name(tuple.protocol()) {
        Some(name) => {
            out.extend(name.chars().map(|letter| letter.to_ascii_uppercase()));
            Ok(())
        }
        None => write!(out, "IP/{}", tuple.protocol()),
    }
}

/// An address, IPv6 in brackets.
struct Host(IpAddr);

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(address) => write!(f, "[{address}]"),
        }
    }
}
