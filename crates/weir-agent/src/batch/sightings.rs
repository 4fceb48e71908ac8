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
            here.ifindex == there.ifindex && here.interface == there.interface && here.netns == there.netns
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
