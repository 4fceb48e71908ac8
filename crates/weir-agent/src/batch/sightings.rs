//! Which of several sightings of a flow counts.
//!
//! A packet may pass several interfaces of one role: a pod's and another pod's, or both ends of a wire. Whoever adds up
//! traffic of a role counts each flow once.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weir_flow::{Direction, Record, Role, Tuple};

/// For each record whether the same flow is also among `records` at another interface of the same role, and counts
/// there. It counts where the forward direction comes into the node, else at the interface with the lowest number.
pub(crate) fn seen_again(records: &[Record]) -> Vec<bool> {
    let mut counting: HashMap<(Tuple, Role), usize, FixedState> =
        HashMap::with_capacity_and_hasher(records.len(), FixedState::default());
    let mut again = vec![false; records.len()];
    let rank = |index: usize| {
        let point = &records[index].point;
        (point.direction != Direction::Ingress, &point.netns, point.ifindex, &point.interface)
    };
    for (index, record) in records.iter().enumerate() {
        let key = (record.tuple.min(record.tuple.reversed()), record.point.role);
        let is_same_place = |other: usize| {
            let (here, there) = (&record.point, &records[other].point);
            let is_same = here.ifindex == there.ifindex && here.interface == there.interface;
            // Loopback shows each packet twice: at egress, and again at ingress.
            let is_once = here.role != Role::Loopback || here.direction == there.direction;
            is_same && is_once && here.netns == there.netns
        };
        match counting.get_mut(&key) {
            None => {
                counting.insert(key, index);
            }
            // A flow may be over and begin anew within one tick.
            Some(other) if is_same_place(*other) => {}
            Some(other) if rank(index) < rank(*other) => {
                again[*other] = true;
                *other = index;
            }
            Some(_) => again[index] = true,
        }
    }
    again
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_flow::Point;

    use super::*;
    use crate::batch::samples;

    /// The first flow of the samples at this place.
    fn seen(interface: u32, direction: Direction, role: Role) -> Record {
        let mut record = samples::batch(1, 1).records[0].clone();
        let name = format!("if{interface}").as_str().into();
        let point = Point { ifindex: interface, interface: name, direction, role, ..(*record.point).clone() };
        record.point = Arc::new(point);
        record
    }

    #[test]
    fn a_flow_counts_once_for_each_role() {
        use Direction::{Egress, Ingress};
        let cases = [
            // Between two pods of the node: where it comes in.
            (vec![(1, Egress, Role::PodEdge), (2, Ingress, Role::PodEdge)], vec![true, false]),
            // Two roles have nothing to do with each other.
            (vec![(1, Ingress, Role::PodEdge), (2, Egress, Role::Uplink)], vec![false, false]),
            // Over and begun anew within a tick.
            (vec![(1, Ingress, Role::PodEdge), (1, Ingress, Role::PodEdge)], vec![false, false]),
            // Loopback in both directions shows everything twice.
            (vec![(1, Egress, Role::Loopback), (1, Ingress, Role::Loopback)], vec![true, false]),
        ];
        for (places, again) in cases {
            let records: Vec<Record> = places
                .iter()
                .map(|(interface, direction, role)| seen(*interface, *direction, *role))
                .collect();
            assert_eq!(seen_again(&records), again, "{places:?}");
        }
    }
}
