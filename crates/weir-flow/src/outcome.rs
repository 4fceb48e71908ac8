//! [`Outcome`]: whether a flow came to something, told from its counters and flags alone.
//!
//! A failure is stated only where it can be known: an answer that is missing, once the flow is over and if the answer
//! would have been counted at this interface; what packets themselves say, at once. Everything else is left open.

use std::net::IpAddr;

use weir_packet::{Tuple, protocol};

use crate::{
    Counters, EndReason,
    aggregate::{FIN, RST, SYN, key::is_one_way},
    initiator::is_group,
};

/// ACK in TCP flags (RFC 9293 3.1).
const ACK: u16 = 0x10;

/// What became of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How the connection failed; `None` if it did not, as far as that is known, or if it is none.
    pub tcp_failure: Option<TcpFailure>,
    /// Whether the source sent and nothing came back; `None` while, or where, that cannot be known.
    pub is_unanswered: Option<bool>,
}

/// How a TCP connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TcpFailure {
    /// The other side answered the SYN by RST.
    Refused,
    /// Nothing answered the SYN.
    Unanswered,
    /// It was established, and one side ended it by RST.
    Reset,
}

/// Whether packets of the reverse direction count at the interface of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// They do.
    Counted,
    /// They do not, or may not: one direction is not watched, or it was counted elsewhere.
    Uncertain,
}

impl TcpFailure {
    /// Every failure.
    pub const ALL: [Self; 3] = [Self::Refused, Self::Unanswered, Self::Reset];

    /// The name shown to users.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
            Self::Reset => "reset",
        }
    }
}

impl Outcome {
    /// What became of the flow with these counters since its beginning, from the source to the destination of `tuple`.
    pub(crate) fn of(
        tuple: &Tuple,
        total: &Counters,
        end_reason: Option<EndReason>,
        answers: Answers,
    ) -> Self {
        // Of later fragments and of truncated headers, the answers belong to another flow.
        if tuple.is_fragment() || tuple.is_truncated() {
            return Self::default();
        }
        let is_unanswered = is_unanswered(tuple, total, end_reason, answers);
        let is_tcp = tuple.protocol() == protocol::TCP;
        let tcp_failure = if is_tcp { tcp_failure(total, is_unanswered) } else { None };
        Self { tcp_failure, is_unanswered }
    }
}

fn is_unanswered(
    tuple: &Tuple,
    total: &Counters,
    end_reason: Option<EndReason>,
    answers: Answers,
) -> Option<bool> {
    if !wants_answer(tuple) || total.forward.packets == 0 {
        return None;
    }
    if total.reverse.packets > 0 {
        return Some(false);
    }
    // When Weir stops, an answer may be on its way.
    let is_over = matches!(end_reason, Some(EndReason::Idle | EndReason::Fin | EndReason::Reset));
    // Who acknowledges has got something: its packets came another way. And only openings of TCP want an answer.
    let is_plausible = tuple.protocol() != protocol::TCP || is_bare_opening(total);
    (is_over && answers == Answers::Counted && is_plausible).then_some(true)
}

fn tcp_failure(total: &Counters, is_unanswered: Option<bool>) -> Option<TcpFailure> {
    let (forward, reverse) = (total.forward.tcp_flags, total.reverse.tcp_flags);
    if is_unanswered == Some(true) {
        Some(TcpFailure::Unanswered)
    } else if is_bare_opening(total) && reverse & RST != 0 && reverse & SYN == 0 {
        Some(TcpFailure::Refused)
    } else {
        let is_established = forward & reverse & ACK != 0 && !is_bare_opening(total);
        let is_closed = forward & reverse & FIN != 0;
        let is_reset = (forward | reverse) & RST != 0;
        (is_established && is_reset && !is_closed).then_some(TcpFailure::Reset)
    }
}

/// Whether the source sent SYN, and acknowledged nothing.
const fn is_bare_opening(total: &Counters) -> bool {
    total.forward.syn > 0 && total.forward.tcp_flags & ACK == 0
}

/// Whether what is sent so could be answered by the destination. An IPv4 address that ends in 255 is the broadcast
/// address of most networks that have one, so nothing is said of those.
fn wants_answer(tuple: &Tuple) -> bool {
    let is_odd = |address: IpAddr| address.is_unspecified() || is_group(address);
    let may_be_broadcast = matches!(tuple.destination(), IpAddr::V4(address) if address.octets()[3] == 255);
    !is_one_way(tuple) && !may_be_broadcast && !is_odd(tuple.source()) && !is_odd(tuple.destination())
}

#[cfg(test)]
mod tests;
