//! Batches for tests of everything that takes them.

use std::{sync::Arc, time::Duration};

use weir_flow::{
    Direction, FlowTable, Monotonic, Observation, Point, PointId, Role, SocketOwner, TableConfig, Tick,
    Traffic, Tuple, Wall, filter::Filter,
};
use weir_packet::{Details, ipv4_words};

use super::{Batch, Collected};
use crate::outlet::{Parcel, ParcelId};

/// The same batch as it is brought to a consumer.
pub(crate) fn parcels(flows: u16, second: u64) -> [Parcel; 1] {
    [Parcel { id: ParcelId(second.into()), batch: batch(flows, second) }]
}

/// A batch of as many flows, each of one packet of 60 bytes from 10.0.0.1 to a port of its own at 10.0.0.2, seen at
/// point 0 in second `second`.
pub(crate) fn batch(flows: u16, second: u64) -> Arc<Batch> {
    let point = |id, direction| {
        let interface = "eth0".into();
        Arc::new(Point { id: PointId(id), netns: None, ifindex: 2, interface, direction, role: Role::Uplink })
    };
    let mut table = FlowTable::new(TableConfig::default());
    table.set_point(point(0, Direction::Ingress));
    table.set_point(point(1, Direction::Egress));
    let wall = Wall(second * 1_000_000_000);
    let tick = Tick { monotonic: Monotonic(2), wall };
    for port in 1..=flows {
        let details = Details::new(false, 6).with_ports(40_000, port);
        table.observe(&Observation {
            tuple: Tuple::new(ipv4_words([10, 0, 0, 1]), ipv4_words([10, 0, 0, 2]), details),
            point: PointId(0),
            traffic: Traffic { packets: 1, bytes: 60, syn: 1, ..Traffic::default() },
            first: Monotonic(1),
            last: Monotonic(1),
            owner: SocketOwner::default(),
        });
    }
    let mut collected = Collected::default();
    table.tick_each(tick, &mut |record| assert!(!collected.add(record, [PointId(0), PointId(1)])));
    collected.into_batch(tick, Duration::from_secs(1), &Filter::default(), true)
}
