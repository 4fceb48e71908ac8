use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use weir_flow::Monotonic;

use super::*;
use crate::batch::{Batch, samples};

fn at(batch: &Arc<Batch>, seconds: u64) -> Batch {
    let mut batch = Batch::clone(batch);
    batch.tick.monotonic = Monotonic(seconds * 1_000_000_000);
    batch
}

fn table(edges: usize) -> EdgeTable {
    EdgeTable::new(Plan { edges, idle: Duration::from_mins(15) })
}

/// Packets of each port that has a place, and those of all others.
fn packets(table: &EdgeTable) -> (BTreeMap<u16, u64>, u64) {
    let snapshot = table.snapshot();
    let places = snapshot.edges.iter().map(|(key, sums)| (key.port.unwrap_or(0), sums.forward.packets));
    (places.collect(), snapshot.others.iter().map(|(_, sums)| sums.forward.packets).sum())
}

#[test]
fn what_has_no_place_is_among_the_others() {
    let table = table(3);
    table.add(&at(&samples::batch(5, 1), 1));
    assert_eq!(packets(&table), ([(1, 1), (2, 1), (3, 1)].into(), 2));
    let (_, sums) = &table.snapshot().edges[0];
    assert_eq!((sums.opened, sums.closed, sums.forward.bytes), (1, 0, 60));
}

#[test]
fn an_idle_edge_gives_up_its_place() {
    let table = table(2);
    table.add(&at(&samples::batch(2, 1), 1));
    table.add(&at(&samples::batch(1, 2), 14 * 60));
    table.add(&at(&samples::batch(1, 3), 16 * 60));
    assert_eq!(packets(&table), ([(1, 3)].into(), 0));
    assert_eq!(table.snapshot().retired, 1);
}

#[test]
fn the_largest_take_the_places_of_much_smaller_ones_and_begin_at_zero() {
    let table = table(1);
    let small = samples::batch(1, 1);
    let mut large = at(&samples::batch(2, 1), 1);
    large.records = large.records.iter().filter(|record| record.destination.port == 2).cloned().collect();
    large.records[0].delta.forward.bytes = 1_000_000;
    table.add(&at(&small, 1));
    table.add(&large);
    assert_eq!(packets(&table), ([(1, 1)].into(), 1));
    // The next turn.
    table.add(&at(&small, 100));
    assert_eq!(packets(&table), ([(2, 0)].into(), 1));
    large.tick.monotonic = Monotonic(101_000_000_000);
    table.add(&large);
    assert_eq!(packets(&table), ([(2, 1)].into(), 1));
    assert_eq!(table.snapshot().retired, 1);
}

proptest! {
    #[test]
    fn numbers_only_grow_and_nothing_is_lost_but_with_a_place(
        ticks in proptest::collection::vec((1_u16..20, 1_u64..200), 1..30),
        edges in 1_usize..8,
    ) {
        let table = table(edges);
        let (mut now, mut before, mut retired) = (0, BTreeMap::new(), 0);
        let mut before_others = 0;
        for (flows, seconds) in ticks {
            now += seconds;
            table.add(&at(&samples::batch(flows, now), now));
            let (places, others) = packets(&table);
            prop_assert!(places.len() <= edges);
            prop_assert!(others >= before_others);
            let gone = table.snapshot().retired;
            for (port, packets) in &places {
                // Only one that lost its place in between may begin anew.
                prop_assert!(*packets >= before.get(port).copied().unwrap_or(0) || gone > retired);
            }
            (before, before_others, retired) = (places, others, gone);
        }
    }
}
