//! A Weir of a test: the counting programs on interfaces of one namespace, and everything they counted so far.

use std::collections::HashMap;

use weir_datapath::flow::{self, Device, Directions, Drained, FlowAttacher, FlowOptions, FlowReader};
use weir_flow::{Count, Direction, Ledger, PointId, Role, Tuple};
use weir_packet::Link;

use crate::{Namespace, VethEnd, tcx::until_ours_are_off};

/// The counting programs, attached; detaches when dropped.
pub struct Counting {
    namespace: Namespace,
    /// The half that attaches.
    pub attacher: FlowAttacher,
    /// The half that reads.
    pub reader: FlowReader,
    /// Sums of all drains.
    pub seen: Seen,
}

/// Sums of all drains so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// By point.
    pub ledgers: HashMap<PointId, Ledger>,
    /// Interfaces that nobody listed.
    pub unlisted: Ledger,
    /// By point and tuple.
    pub flows: HashMap<(PointId, Tuple), Count>,
    /// Overflow entries of the largest table so far.
    pub overflow_capacity: u32,
    /// Drains.
    pub drains: usize,
}

impl Counting {
    /// Loads the programs; attaches nothing yet.
    pub fn load(namespace: &Namespace, options: &FlowOptions) -> Self {
        let (attacher, reader) = namespace.run(|| flow::load(options)).expect("the programs load");
        Self { namespace: namespace.clone(), attacher, reader, seen: Seen::default() }
    }

    /// Loads the programs and attaches them to one end of a wire, in both directions.
    pub fn on(end: &VethEnd, options: &FlowOptions) -> (Self, PointId, PointId) {
        let mut counting = Self::load(&end.namespace, options);
        let points = counting.attach(&end.name, end.index, Link::Ethernet);
        let [ingress, egress] = points[..] else { panic!("two points, not {points:?}") };
        (counting, ingress, egress)
    }

    /// Attaches to one more interface, in both directions.
    pub fn attach(&mut self, name: &str, index: u32, link: Link) -> Vec<PointId> {
        self.attach_with(name, index, link, false)
    }

    /// The same, but packets that were counted where they came in are duplicates when they leave here.
    pub fn attach_deduplicating(&mut self, end: &VethEnd) -> [PointId; 2] {
        let points = self.attach_with(&end.name, end.index, Link::Ethernet, true);
        points.try_into().expect("both directions were attached")
    }

    fn attach_with(&mut self, name: &str, index: u32, link: Link, deduplicate: bool) -> Vec<PointId> {
        let device = Device { index, name: name.into(), link, role: Role::Other };
        let Self { namespace, attacher, .. } = self;
        let attached = namespace
            .run(|| attacher.attach(&device, Directions::Both, deduplicate))
            .unwrap_or_else(|error| panic!("{name}: {error}: {:?}", std::error::Error::source(&error)));
        attached.points.iter().map(|point| point.id).collect()
    }

    /// Stops counting an end of a wire, on which nobody else counts.
    pub fn detach(&mut self, end: &VethEnd) -> bool {
        let Self { namespace, attacher, .. } = self;
        let was_counted = namespace.run(|| attacher.detach(end.index));
        until_ours_are_off(namespace, &end.name);
        was_counted
    }

    /// Drains once, checks the identity of every ledger, and adds everything up.
    pub fn drain(&mut self) -> Drained {
        let Self { reader, attacher, seen, .. } = self;
        let mut flows = HashMap::<PointId, Count>::new();
        let drained = reader
            .drain(|observation| {
                let count = Count { packets: observation.traffic.packets, bytes: observation.traffic.bytes };
                *flows.entry(observation.point).or_default() += count;
                *seen.flows.entry((observation.point, observation.tuple)).or_default() += count;
            })
            .expect("the drain works");
        for (point, ledger) in drained.ledgers.iter().chain(&drained.unlisted) {
            assert!(ledger.is_balanced(), "{}: {ledger:?}", point.interface);
            let observed = flows.get(&point.id).copied().unwrap_or_default();
            assert_eq!(observed, ledger.flows, "{} {}", point.interface, point.direction);
        }
        for (point, ledger) in &drained.ledgers {
            *seen.ledgers.entry(point.id).or_default() += *ledger;
        }
        for (_, ledger) in &drained.unlisted {
            seen.unlisted += *ledger;
        }
        seen.overflow_capacity = seen.overflow_capacity.max(drained.table.next_overflow);
        seen.drains += 1;
        let freed = reader.finish_drain();
        attacher.forget_drained(&freed);
        drained
    }

    /// Drains both generations, so that everything sent before the call is in [`Counting::seen`].
    pub fn drain_all(&mut self) -> &Seen {
        self.drain();
        self.drain();
        &self.seen
    }
}

impl Seen {
    /// The ledger of a point.
    pub fn ledger(&self, point: PointId) -> Ledger {
        self.ledgers.get(&point).copied().unwrap_or_default()
    }

    /// What was counted of a flow at a point.
    pub fn flow(&self, point: PointId, tuple: Tuple) -> Count {
        self.flows.get(&(point, tuple)).copied().unwrap_or_default()
    }

    /// Flows of a point.
    pub fn flows_of(&self, point: PointId) -> impl Iterator<Item = (&Tuple, &Count)> {
        self.flows.iter().filter(move |((at, _), _)| *at == point).map(|((_, tuple), count)| (tuple, count))
    }
}

/// The interface's own counters: (packets, bytes) received and sent, from sysfs-free netlink through `ip`.
pub fn link_counters(end: &VethEnd, direction: Direction) -> (u64, u64) {
    let text = end.namespace.ip(&format!("-s -j link show dev {}", end.name));
    let side = match direction {
        Direction::Ingress => "\"rx\":{",
        Direction::Egress => "\"tx\":{",
    };
    let part = text.split_once(side).unwrap_or_else(|| panic!("{side} in {text}")).1;
    let number = |key: &str| {
        let rest = part.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key} in {part}")).1;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    };
    (number("packets"), number("bytes"))
}
