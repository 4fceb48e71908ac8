//! The table of connections: showing it, ending some, removing what timed out.

use std::{collections::BTreeSet, net::SocketAddr, ops::ControlFlow, os::fd::BorrowedFd, time::Duration};

use weir_common::redirect::{
    CONNECTION_DIRECT, CONNECTION_ENDED, CONNECTION_FIN, CONNECTION_RST, CONNECTION_SEEN, ConnectionValue,
    is_forward, is_pair, pair_key,
};

use super::{
    connection::{Connection, ConnectionState, ConnectionsOf, Tuple},
    counters::Expired,
    desired::{BackendId, RuleId, Timeouts, Transport},
    error::RedirectError,
    maps::{CONNECTION_WORDS, Maps},
    publish::{Mirror, PortBits, add_key, no_ports},
    stamp::Stamps,
    words::{self, address, address_words, destination_port, forward_key, source_port},
};
use crate::bpf::batch::BatchWalk;

/// Entries that are read at a time.
const BATCH: usize = 4096;

/// Entries that one call of [`Sweep::step`] looks at.
const MOST_AT_ONCE: u64 = 131_072;

type Entry = ([u64; 5], ConnectionValue);

/// All entries, in pieces.
fn each(
    map: BorrowedFd<'_>,
    mut visit: impl FnMut(&[u64; 5], ConnectionValue) -> ControlFlow<()>,
) -> Result<(), RedirectError> {
    let mut walk = BatchWalk::<5, CONNECTION_WORDS>::new(BATCH);
    let mut is_over = false;
    loop {
        let (_, is_end) = walk
            .step(map, |key, words| {
                if !is_over && visit(key, zerocopy::transmute!(*words)).is_break() {
                    is_over = true;
                }
            })
            .map_err(|source| RedirectError::MapCall { name: "CONNECTIONS", source })?;
        if is_over || is_end {
            return Ok(());
        }
    }
}

/// The entry of the other direction, unless it is not there or of a later connection that has taken it over.
fn pair_of(
    maps: &Maps,
    key: &[u64; 5],
    value: &ConnectionValue,
) -> Result<Option<ConnectionValue>, RedirectError> {
    let pair = maps.lookup(&pair_key(key, value))?;
    Ok(pair.filter(|pair| is_pair(key, pair)))
}

/// Both directions of a connection as one.
fn describe(
    maps: &Maps,
    stamps: &Stamps,
    key: &[u64; 5],
    value: &ConnectionValue,
) -> Result<Connection, RedirectError> {
    let pair = pair_of(maps, key, value)?;
    let now = stamps.now();
    let tuple = words::tuple(key);
    let answered = pair.is_some_and(|pair| pair.flags & CONNECTION_SEEN != 0);
    let idle = stamps.since(value.seen, now);
    let idle = match pair {
        Some(pair) if answered => idle.min(stamps.since(pair.seen, now)),
        _ => idle,
    };
    Ok(Connection {
        tuple,
        rule: RuleId(value.rule),
        backend: BackendId(value.backend),
        backend_address: SocketAddr::new(
            address(value.address, tuple.client.is_ipv6()),
            destination_port(value.ports),
        ),
        client_port_used: source_port(value.ports),
        state: state(tuple.transport, value.flags, pair.map_or(0, |pair| pair.flags)),
        age: stamps.since(value.created, now),
        idle,
        is_replied: answered,
        is_direct: value.flags & CONNECTION_DIRECT != 0,
    })
}

/// How far a connection is, by what was seen in both directions.
fn state(transport: Transport, forward: u8, reverse: u8) -> ConnectionState {
    if forward & CONNECTION_ENDED != 0 {
        return ConnectionState::Ended;
    }
    let answered = reverse & CONNECTION_SEEN != 0;
    match transport {
        Transport::Udp if answered => ConnectionState::Udp,
        Transport::Udp => ConnectionState::UdpUnreplied,
        Transport::Tcp if (forward | reverse) & CONNECTION_RST != 0 => ConnectionState::Closing,
        Transport::Tcp if forward & reverse & CONNECTION_FIN != 0 => ConnectionState::Closing,
        Transport::Tcp if !answered => ConnectionState::Syn,
        Transport::Tcp if (forward | reverse) & CONNECTION_FIN != 0 => ConnectionState::HalfClosed,
        Transport::Tcp => ConnectionState::Established,
    }
}

/// Whether a connection timed out.
fn is_over(state: ConnectionState, idle: Duration, age: Duration, timeouts: &Timeouts) -> bool {
    match state {
        ConnectionState::Syn => idle >= timeouts.syn,
        ConnectionState::Established | ConnectionState::HalfClosed => idle >= timeouts.established,
        ConnectionState::Closing | ConnectionState::Ended => idle >= timeouts.closing,
        ConnectionState::Udp => idle >= timeouts.udp,
        ConnectionState::UdpUnreplied => idle >= timeouts.udp || age >= timeouts.udp_unreplied,
    }
}

/// Hands over connections until `visit` breaks.
pub(super) fn connections(
    maps: &Maps,
    stamps: &Stamps,
    visit: &mut dyn FnMut(&Connection) -> ControlFlow<()>,
) -> Result<(), RedirectError> {
    let mut failure = None;
    each(maps.connections_fd(), |key, value| {
        if !is_forward(key) {
            return ControlFlow::Continue(());
        }
        match describe(maps, stamps, key, &value) {
            Ok(connection) => visit(&connection),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failure.map_or(Ok(()), Err)
}

/// One connection.
pub(super) fn connection(
    maps: &Maps,
    stamps: &Stamps,
    tuple: &Tuple,
) -> Result<Option<Connection>, RedirectError> {
    let key = forward_key(tuple);
    let Some(value) = maps.lookup(&key)? else { return Ok(None) };
    describe(maps, stamps, &key, &value).map(Some)
}

/// How many connections there are.
pub(super) fn count(maps: &Maps) -> Result<u64, RedirectError> {
    let mut count = 0;
    each(maps.connections_fd(), |key, _| {
        count += u64::from(is_forward(key));
        ControlFlow::Continue(())
    })?;
    Ok(count)
}

/// How many entries there are: two for each connection, and those whose other one is missing.
pub(super) fn entries(maps: &Maps) -> Result<u64, RedirectError> {
    let mut count = 0;
    each(maps.connections_fd(), |_, _| {
        count += 1;
        ControlFlow::Continue(())
    })?;
    Ok(count)
}

/// How many connections these backends have.
pub(super) fn count_of(maps: &Maps, backends: &BTreeSet<BackendId>) -> Result<u64, RedirectError> {
    let mut count = 0;
    each(maps.connections_fd(), |key, value| {
        count += u64::from(is_forward(key) && backends.contains(&BackendId(value.backend)));
        ControlFlow::Continue(())
    })?;
    Ok(count)
}

/// Ends connections.
pub(super) fn end(maps: &mut Maps, of: ConnectionsOf) -> Result<u64, RedirectError> {
    let mut entries: Vec<Entry> = Vec::new();
    each(maps.connections_fd(), |key, value| {
        let is_meant = match of {
            ConnectionsOf::Rule(rule) => value.rule == rule.0,
            ConnectionsOf::Backend(backend) => value.backend == backend.0,
            ConnectionsOf::Client(client) => [key[0], key[1]] == address_words(client),
        };
        // What a client began itself, to a backend and not to a listener, is its own.
        if is_forward(key) && is_meant && value.flags & (CONNECTION_ENDED | CONNECTION_DIRECT) == 0 {
            entries.push((*key, value));
        }
        ControlFlow::Continue(())
    })?;
    let mut ended = 0;
    for (key, seen) in entries {
        // It may be another connection by now.
        let Some(mut value) =
            maps.lookup(&key)?.filter(|now| now.created == seen.created && now.address == seen.address)
        else {
            continue;
        };
        let was_there = if words::tuple(&key).transport == Transport::Udp {
            if pair_of(maps, &key, &value)?.is_some() {
                maps.remove(&pair_key(&key, &value))?;
            }
            maps.remove(&key)?
        } else {
            value.flags |= CONNECTION_ENDED;
            maps.replace(&key, &value)?
        };
        ended += u64::from(was_there);
    }
    Ok(ended)
}

/// A sweep through the table, in several calls.
#[derive(Debug)]
pub(super) struct Sweep {
    walk: BatchWalk<5, CONNECTION_WORDS>,
    /// Connections in this sweep so far.
    counted: u64,
    /// Connections in the last whole one.
    pub(super) connections: u64,
    /// Ports that connections of this sweep use.
    ports: PortBits,
    /// Whether what is published changed since the sweep began.
    pub(super) is_stale: bool,
}

impl Sweep {
    pub(super) fn new(connections: u64) -> Self {
        Self { walk: BatchWalk::new(BATCH), counted: 0, connections, ports: no_ports(), is_stale: false }
    }

    /// Goes on with the sweep, and removes what timed out.
    pub(super) fn step(
        &mut self,
        maps: &mut Maps,
        mirror: &Mirror,
        stamps: &Stamps,
    ) -> Result<Expired, RedirectError> {
        let mut expired = Expired { connections: self.connections, ..Expired::default() };
        let mut entries: Vec<Entry> = Vec::with_capacity(BATCH);
        while expired.looked_at < MOST_AT_ONCE {
            entries.clear();
            let (count, is_end) = self
                .walk
                .step(maps.connections_fd(), |key, words| entries.push((*key, zerocopy::transmute!(*words))))
                .map_err(|source| RedirectError::MapCall { name: "CONNECTIONS", source })?;
            expired.looked_at += count as u64;
            for (key, value) in &entries {
                if look_after(maps, mirror, stamps, key, value)? {
                    expired.removed += u64::from(is_forward(key));
                } else {
                    self.counted += u64::from(is_forward(key));
                    add_key(&mut self.ports, key);
                }
            }
            if is_end {
                expired.is_whole = true;
                self.connections = self.counted;
                expired.connections = self.counted;
                self.counted = 0;
                self.close_ports(maps, mirror);
                break;
            }
        }
        Ok(expired)
    }

    /// At the end of a sweep: ports that neither rules nor connections need are of no interest any more.
    fn close_ports(&mut self, maps: &Maps, mirror: &Mirror) {
        let used = std::mem::replace(&mut self.ports, no_ports());
        if std::mem::take(&mut self.is_stale) {
            // Connections of a rule that went away meanwhile may have begun behind the sweep.
            return;
        }
        for (index, (needed, used)) in mirror.ports().iter().zip(&used).enumerate() {
            for (word, (needed, used)) in needed.iter().zip(used.iter()).enumerate() {
                if maps.ports.word(index, word) != needed | used {
                    maps.ports.set_word(index, word, needed | used);
                }
            }
        }
    }
}

/// Removes an entry, and its pair, if the connection timed out. Says whether it did.
fn look_after(
    maps: &mut Maps,
    mirror: &Mirror,
    stamps: &Stamps,
    key: &[u64; 5],
    value: &ConnectionValue,
) -> Result<bool, RedirectError> {
    let timeouts = mirror.rules.get(&RuleId(value.rule)).map_or_else(Timeouts::default, |rule| rule.timeouts);
    let transport = words::tuple(key).transport;
    let now = stamps.now();
    let (idle, age) = (stamps.since(value.seen, now), stamps.since(value.created, now));
    let shortest = match transport {
        Transport::Tcp => timeouts.syn.min(timeouts.established).min(timeouts.closing),
        Transport::Udp => timeouts.udp,
    };
    if idle < shortest && !(transport == Transport::Udp && age >= timeouts.udp_unreplied) {
        return Ok(false);
    }
    let other_key = pair_key(key, value);
    let other = pair_of(maps, key, value)?;
    let (forward, reverse) = if is_forward(key) { (Some(*value), other) } else { (other, Some(*value)) };
    let flags = |value: Option<ConnectionValue>| value.map_or(0, |value| value.flags);
    let idle = other.map_or(idle, |other| idle.min(stamps.since(other.seen, now)));
    if !is_over(state(transport, flags(forward), flags(reverse)), idle, age, &timeouts) {
        return Ok(false);
    }
    // The client's side first: without it no packet goes on, and a new connection makes both anew.
    let other_key = other.map(|_| other_key);
    let (first, second) = if is_forward(key) { (Some(*key), other_key) } else { (other_key, Some(*key)) };
    for key in first.iter().chain(&second) {
        maps.remove(key)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_connection_follows_from_both_directions() {
        const SEEN: u8 = CONNECTION_SEEN;
        const FIN: u8 = CONNECTION_SEEN | CONNECTION_FIN;
        const RST: u8 = CONNECTION_SEEN | CONNECTION_RST;
        for (transport, forward, reverse, expected) in [
            (Transport::Tcp, SEEN, 0, ConnectionState::Syn),
            (Transport::Tcp, SEEN, SEEN, ConnectionState::Established),
            (Transport::Tcp, FIN, SEEN, ConnectionState::HalfClosed),
            (Transport::Tcp, SEEN, FIN, ConnectionState::HalfClosed),
            (Transport::Tcp, FIN, FIN, ConnectionState::Closing),
            (Transport::Tcp, SEEN, RST, ConnectionState::Closing),
            (Transport::Tcp, RST, 0, ConnectionState::Closing),
            (Transport::Tcp, SEEN | CONNECTION_ENDED, SEEN, ConnectionState::Ended),
            (Transport::Udp, SEEN, 0, ConnectionState::UdpUnreplied),
            (Transport::Udp, SEEN, SEEN, ConnectionState::Udp),
        ] {
            assert_eq!(state(transport, forward, reverse), expected, "{forward:#x} {reverse:#x}");
        }
    }

    #[test]
    fn an_unanswered_udp_flow_ends_by_age_however_busy_it_is() {
        let timeouts = Timeouts::default();
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(301));
        assert!(is_over(ConnectionState::UdpUnreplied, short, long, &timeouts));
        assert!(!is_over(ConnectionState::Udp, short, long, &timeouts));
        assert!(is_over(ConnectionState::Udp, Duration::from_mins(2), long, &timeouts));
        assert!(!is_over(ConnectionState::Established, long, long, &timeouts));
    }
}
