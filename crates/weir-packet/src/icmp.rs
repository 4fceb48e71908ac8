//! Which ICMP messages ask and answer, so that both directions of an exchange are one flow.

/// The ICMP type that answers `kind`, or that `kind` answers, if it belongs to a pair.
///
/// The pairs are those of the Community ID specification. IPv4: echo 8/0, router solicitation 10/9 (RFC 1256),
/// timestamp 13/14, information 15/16 (RFC 792), address mask 17/18 (RFC 950). IPv6: echo 128/129 (RFC 4443), listener
/// query 130/131 (RFC 2710), router 133/134 and neighbour 135/136 discovery (RFC 4861), node information 139/140
/// (RFC 4620), home agent discovery 144/145 (RFC 6275).
///
/// ```
/// use weir_packet::answering_type;
/// assert_eq!(answering_type(false, 8), Some(0));
/// assert_eq!(answering_type(true, 136), Some(135));
/// assert_eq!(answering_type(false, 3), None);
/// ```
#[inline(always)]
pub const fn answering_type(is_ipv6: bool, kind: u8) -> Option<u8> {
    // Arithmetic, because a table of types would become a map of read-only data in the kernel object.
    let (from_even, from_odd) = if is_ipv6 {
        (matches!(kind, 128..=131 | 144 | 145), matches!(kind, 133..=136 | 139 | 140))
    } else {
        (false, matches!(kind, 9 | 10 | 13..=18))
    };
    if from_even {
        Some(kind ^ 1)
    } else if from_odd {
        Some(((kind - 1) ^ 1) + 1)
    } else if !is_ipv6 && (kind == 0 || kind == 8) {
        Some(kind ^ 8)
    } else {
        None
    }
}
