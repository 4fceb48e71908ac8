//! Which addresses the name that was asked for has, by way of other names for it.

use std::net::IpAddr;

use weir_packet::dns::{Answer, Data, Name};

/// Most other names on the way. Resolvers follow fewer.
const MOST_NAMES: usize = 32;

/// The addresses of a name in the answers to a question, each with the least time in seconds that any step to it may be
/// kept. Records of other names, which nobody asked for, are left out.
pub(super) fn addresses(name: Name, answers: impl Iterator<Item = Answer>) -> Vec<(IpAddr, u32)> {
    let mut aliases = Vec::new();
    let mut addresses = Vec::new();
    for Answer { name, ttl, data } in answers {
        match data {
            Data::Alias(alias) => aliases.push((name, ttl, alias)),
            Data::Address(address) => addresses.push((name, ttl, address)),
            Data::Other => {}
        }
    }
    let mut known = vec![(name, u32::MAX)];
    let mut next = 0;
    // In whatever order the records come.
    while let Some((name, least)) = known.get(next).copied() {
        next += 1;
        for (_, ttl, alias) in aliases.iter().filter(|(owner, ..)| *owner == name) {
            if known.len() <= MOST_NAMES && !known.iter().any(|(known, _)| known == alias) {
                known.push((*alias, least.min(*ttl)));
            }
        }
    }
    let of = |owner: &Name| known.iter().find(|(name, _)| name == owner).map(|(_, least)| *least);
    let with_least = |(owner, ttl, address): (Name, u32, IpAddr)| Some((address, of(&owner)?.min(ttl)));
    addresses.into_iter().filter_map(with_least).collect()
}
