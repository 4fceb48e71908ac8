//! [`Counts`]: what became of everything that the kernel handed over.

use weir_l7::Protocol;

/// Everything since the start. Bytes are bytes of the streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections; of sockets that exchange datagrams with several others, each of those.
    pub connections: u64,
    /// Of these, connections that were there before the tap.
    pub existing: u64,
    /// TCP connections of which the end was told.
    pub closed: u64,
    /// Of these, connections whose ledger did not add up.
    pub unbalanced: u64,
    /// Calls by protocol, in the order of [`Protocol::ALL`].
    pub calls: [u64; Protocol::ALL.len()],
    /// Bytes that the kernel handed over.
    pub given: u64,
    /// Of these, bytes that were handed on in the order of their streams.
    pub delivered: u64,
    /// Of these, bytes whose place was taken: several threads wrote on one socket, and the order is in doubt.
    pub duplicate: u64,
    /// Of these, bytes that still wait for their turn.
    pub waiting: u64,
    /// Of these, bytes of sockets of which the opening was not told.
    pub unknown: u64,
    /// Of these, bytes of sockets and peers that are not followed because there are too many.
    pub unfollowed: u64,
    /// Sockets and peers that are not followed because there are too many.
    pub refused: u64,
    /// Sockets that were given up for others, because they were silent and there were too many.
    pub forgotten: u64,
    /// Bytes of connections, now closed, that the kernel counted and no hook saw.
    pub unseen: u64,
    /// Gaps that were handed over, in bytes.
    pub gaps: u64,
    /// Bytes that were missing between others, or at the end.
    pub missing: u64,
    /// How often bytes had to wait no longer because too many of all connections did.
    pub hurried: u64,
    /// About how many bytes of memory calls that are not over take at present, and datagrams that are not whole.
    pub held: u64,
    /// Bytes of bodies and heads that were not kept because calls that are not over take too many.
    pub left_out: u64,
    /// Calls that were told before their answers came, for the same reason.
    pub cut: u64,
    /// Other ends of sockets that exchange datagrams, at present.
    pub peers: u64,
}

impl Counts {
    /// Whether every byte that was handed over is somewhere.
    pub const fn is_balanced(&self) -> bool {
        self.given == self.delivered + self.duplicate + self.waiting + self.unknown + self.unfollowed
    }

    /// Calls of all protocols.
    pub fn all_calls(&self) -> u64 {
        self.calls.iter().sum()
    }
}
