//! The table by which a new connection finds its backend: weighted Maglev.
//!
//! Each backend has an order of its own in which it would like to have the places, made from its address alone. In
//! turns, as often as their weights say, they take the next free one. So shares are even to a few places, the table
//! depends on nothing but addresses and weights, and when a backend goes, few places change hands among the others.
//! (D. Eisenbud et al., "Maglev", NSDI 2016, section 3.4; turns by weight are ours.)

use std::net::{IpAddr, SocketAddr};

/// How many places tables may have. Primes, so that every step visits all of them.
pub const PLACES: [usize; 4] = [251, 1021, 4093, 16_381];

/// Places that a unit of weight should have, if the largest table allows: shares are right to a part of that.
const PLACES_A_UNIT: usize = 100;

/// For each place the position in `backends` of who has it. Empty if nobody weighs anything. One alone has a table of
/// one place.
pub fn table(backends: &[(SocketAddr, u16)]) -> Vec<usize> {
    let heaviest = backends.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
    let takers = backends.iter().filter(|(_, weight)| *weight > 0).count();
    if takers == 1 {
        return backends.iter().position(|(_, weight)| *weight > 0).into_iter().collect();
    }
    if heaviest == 0 {
        return Vec::new();
    }
    let places = places(backends);
    let mut wishes: Vec<Wishes> = backends
        .iter()
        .enumerate()
        .filter(|(_, (_, weight))| *weight > 0)
        .map(|(position, (address, weight))| Wishes::new(position, *address, *weight, places))
        .collect();
    // Whoever is first in a turn has an advantage; which that is must not depend on the order in the file.
    wishes.sort_by_key(|it| (it.next, it.step, backends[it.position].0));
    let mut taken: Vec<Option<usize>> = vec![None; places];
    let mut free = places;
    loop {
        for wish in &mut wishes {
            // In each turn the heaviest takes one place, the others one when their weight has added up to as much.
            wish.credit += wish.weight;
            if wish.credit < heaviest {
                continue;
            }
            wish.credit -= heaviest;
            wish.take(&mut taken);
            free -= 1;
            if free == 0 {
                return taken.into_iter().flatten().collect();
            }
        }
    }
}

/// The smallest table that is fine enough.
fn places(backends: &[(SocketAddr, u16)]) -> usize {
    let weights = || backends.iter().map(|(_, weight)| usize::from(*weight)).filter(|weight| *weight > 0);
    let common = weights().fold(0, greatest_common_divisor).max(1);
    let wanted = weights().sum::<usize>() / common * PLACES_A_UNIT;
    PLACES.into_iter().find(|places| *places >= wanted).unwrap_or(PLACES[3])
}

fn greatest_common_divisor(first: usize, second: usize) -> usize {
    if second == 0 { first } else { greatest_common_divisor(second, first % second) }
}

/// Who wants places, and which one next.
struct Wishes {
    position: usize,
    weight: u16,
    credit: u16,
    next: usize,
    step: usize,
}

impl Wishes {
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is smaller than the table")]
    fn new(position: usize, address: SocketAddr, weight: u16, places: usize) -> Self {
        let hash = hash(address);
        let places = places as u64;
        let next = ((hash >> 32) % places) as usize;
        let step = ((hash & 0xffff_ffff) % (places - 1) + 1) as usize;
        Self { position, weight, credit: 0, next, step }
    }

    /// Takes the first free place in its order. There must be one.
    fn take(&mut self, taken: &mut [Option<usize>]) {
        loop {
            let place = self.next;
            self.next = (place + self.step) % taken.len();
            if taken[place].is_none() {
                taken[place] = Some(self.position);
                return;
            }
        }
    }
}

/// FNV-1a over the address, stirred once more. It must never change: two versions of Weir in front of the same
/// backends have to agree.
fn hash(address: SocketAddr) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    match address.ip() {
        IpAddr::V4(address) => address.octets().into_iter().for_each(&mut add),
        IpAddr::V6(address) => address.octets().into_iter().for_each(&mut add),
    }
    address.port().to_be_bytes().into_iter().for_each(&mut add);
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ hash >> 29
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backend(number: u32, weight: u16) -> (SocketAddr, u16) {
        (SocketAddr::new(IpAddr::V4((0x0a00_0000 + number).into()), 8080), weight)
    }

    fn shares(table: &[usize], backends: usize) -> Vec<usize> {
        let mut shares = vec![0; backends];
        for position in table {
            shares[*position] += 1;
        }
        shares
    }

    #[test]
    fn nobody_has_an_empty_table_and_one_alone_a_single_place() {
        assert!(table(&[]).is_empty());
        assert!(table(&[backend(1, 0)]).is_empty());
        assert_eq!(table(&[backend(1, 0), backend(2, 7)]), [1]);
    }

    #[test]
    fn a_table_is_as_large_as_it_has_to_be() {
        fn check(weights: &[u16], expect: usize) {
            let backends: Vec<_> =
                (1..).zip(weights).map(|(number, weight)| backend(number, *weight)).collect();
            assert_eq!(table(&backends).len(), expect, "{weights:?}");
        }
        check(&[1, 1], 251);
        check(&[200, 200], 251);
        check(&[1, 2, 0], 1021);
        check(&[1; 10], 1021);
        check(&[1; 40], 4093);
        check(&[1; 41], 16_381);
        check(&[1, 256], 16_381);
        check(&[1; 400], 16_381);
    }

    #[test]
    fn the_table_never_changes_from_version_to_version() {
        let table = table(&[backend(1, 1), backend(2, 2), backend(3, 3)]);
        let digest = table.iter().fold(0u64, |sum, place| sum.wrapping_mul(31).wrapping_add(*place as u64));
        assert_eq!((shares(&table, 3), digest), (vec![170, 340, 511], 13_213_039_335_206_298_974));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        fn shares_are_as_the_weights(weights in prop::collection::vec(0u16..=256, 2..30)) {
            let backends: Vec<_> =
                (0..).zip(&weights).map(|(number, weight)| backend(number, *weight)).collect();
            let table = table(&backends);
            let total: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
            let takers = weights.iter().filter(|weight| **weight > 0).count();
            prop_assume!(takers > 1);
            // Each may be one place ahead or behind; what all are behind together is spread by weight.
            for (share, weight) in shares(&table, backends.len()).into_iter().zip(&weights) {
                let due = table.len() as f64 * f64::from(*weight) / f64::from(total);
                let slack = 1.0 + takers as f64 * f64::from(*weight) / f64::from(total);
                prop_assert!((share as f64 - due).abs() <= slack, "{share} places, {due} due");
            }
        }

        #[test]
        fn the_order_in_the_file_does_not_matter(
            weights in prop::collection::vec(1u16..20, 2..12),
            turn in 1usize..11,
        ) {
            let backends: Vec<_> =
                (0..).zip(&weights).map(|(number, weight)| backend(number, *weight)).collect();
            let mut turned = backends.clone();
            turned.rotate_left(turn % backends.len());
            let by_address = |backends: &[(SocketAddr, u16)]| -> Vec<SocketAddr> {
                table(backends).into_iter().map(|position| backends[position].0).collect()
            };
            prop_assert_eq!(by_address(&backends), by_address(&turned));
        }

        #[test]
        fn few_places_change_hands_when_a_backend_goes(count in 3u32..30, leaves in 0u32..30) {
            let leaves = (leaves % count) as usize;
            let all: Vec<_> = (0..count).map(|number| backend(number, 1)).collect();
            let mut rest = all.clone();
            let gone = rest.remove(leaves).0;
            let (before, after) = (table(&all), table(&rest));
            let moved = before
                .iter()
                .zip(&after)
                .filter(|(old, new)| all[**old].0 != gone && all[**old].0 != rest[**new].0)
                .count();
            // Those of the one that went must move; of the others, a small part does.
            prop_assert!(before.len() != after.len() || moved * 4 < before.len(), "{moved} moved without need");
        }
    }
}
