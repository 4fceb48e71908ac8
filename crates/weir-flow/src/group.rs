//! Adds flows up: by the values of fields, by role, and what is left besides the largest.
//!
//! Packets of different roles are never added, for the same packet passes a pod's interface, a tunnel and an uplink:
//! every sum here belongs to one role. Nothing gets lost: the sums of the groups, and of the largest and the others,
//! are the sums of the records.

use std::{cmp::Reverse, collections::HashMap, ops::AddAssign};

use crate::{
    Count, Record, Role,
    field::{Field, Value},
};

/// Flows added up, over one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Records.
    pub flows: u64,
    /// From source to destination.
    pub forward: Count,
    /// From destination to source.
    pub reverse: Count,
    /// Received by the interfaces, whichever end opened the flow.
    pub ingress: Count,
    /// Sent by the interfaces.
    pub egress: Count,
}

/// The flows of one role that have the values of some fields in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<'r> {
    /// The values, in the order of the fields.
    pub values: Vec<Value<'r>>,
    /// The role.
    pub role: Role,
    /// Their sum.
    pub sums: Sums,
}

/// The largest of something, and the sum of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking<T> {
    /// The largest first; with equal bytes, in their first order.
    pub shown: Vec<T>,
    /// What is not shown, for each role of which there is some, in the order in which totals prefer roles.
    pub others: Vec<(Role, Sums)>,
}

/// What has a sum, of one role.
pub trait Summed {
    /// Where it was counted, and how much.
    fn role_and_sums(&self) -> (Role, Sums);
}

/// Adds up `records` that agree in role and in all of `fields`, in the order in which the groups first appear.
pub fn group<'r>(records: impl IntoIterator<Item = &'r Record>, fields: &[&'static Field]) -> Vec<Group<'r>> {
    let mut positions: HashMap<(Role, Vec<Value<'r>>), usize> = HashMap::new();
    let mut groups: Vec<Group<'r>> = Vec::new();
    for record in records {
        let values: Vec<Value<'r>> = fields.iter().map(|field| field.value(record)).collect();
        let role = record.point.role;
        let position = *positions.entry((role, values)).or_insert_with_key(|(_, values)| {
            groups.push(Group { values: values.clone(), role, sums: Sums::default() });
            groups.len() - 1
        });
        groups[position].sums += Sums::of(record);
    }
    groups
}

/// Puts the largest (by bytes of both directions) first and sums up all but the first `top`.
pub fn rank<T: Summed>(items: Vec<T>, top: Option<usize>) -> Ranking<T> {
    let mut shown = items;
    shown.sort_by_cached_key(|item| Reverse(item.role_and_sums().1.both().bytes));
    let rest = shown.split_off(top.unwrap_or(shown.len()).min(shown.len()));
    Ranking { others: by_role(&rest), shown }
}

/// Adds up by role, in the order in which totals prefer roles; a role of which there is nothing is left out.
pub fn by_role<T: Summed>(items: &[T]) -> Vec<(Role, Sums)> {
    let mut totals: Vec<(Role, Sums)> = Role::ALL.into_iter().map(|role| (role, Sums::default())).collect();
    for (role, sums) in items.iter().map(Summed::role_and_sums) {
        for (_, total) in totals.iter_mut().filter(|(candidate, _)| *candidate == role) {
            *total += sums;
        }
    }
    totals.retain(|(_, sums)| sums.flows > 0);
    totals
}

impl Sums {
    /// What one record tells of its interval.
    pub fn of(record: &Record) -> Self {
        let (forward, reverse) = (record.delta.forward.count(), record.delta.reverse.count());
        let mut passed = [Count::default(); 2];
        passed[record.point.direction as usize] += forward;
        passed[record.reverse_direction() as usize] += reverse;
        let [ingress, egress] = passed;
        Self { flows: 1, forward, reverse, ingress, egress }
    }

    /// Both directions.
    pub fn both(&self) -> Count {
        self.forward + self.reverse
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.flows += other.flows;
        self.forward += other.forward;
        self.reverse += other.reverse;
        self.ingress += other.ingress;
        self.egress += other.egress;
    }
}

impl Summed for &Record {
    fn role_and_sums(&self) -> (Role, Sums) {
        (self.point.role, Sums::of(self))
    }
}

impl Summed for Group<'_> {
    fn role_and_sums(&self) -> (Role, Sums) {
        (self.role, self.sums)
    }
}

impl Summed for (Role, Sums) {
    fn role_and_sums(&self) -> (Role, Sums) {
        *self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::Direction;
    use crate::{
        Point,
        field::FIELDS,
        format::samples::{point, record, traffic, tuple},
    };

    fn flow(role: Role, direction: Direction, port: u16, packets: (u64, u64)) -> Record {
        let tuple = tuple(6, ("10.0.0.1", 50_000), ("10.0.0.2", port));
        let mut record = record(tuple, traffic(packets.0, 100, 0), traffic(packets.1, 60, 0));
        record.point = Arc::new(Point { direction, role, ..(*point()).clone() });
        record
    }

    fn port() -> &'static Field {
        Field::by_name("destination.port").unwrap()
    }

    #[test]
    fn flows_are_added_by_their_values_and_never_across_roles() {
        let records = [
            flow(Role::Uplink, Direction::Egress, 80, (1, 2)),
            flow(Role::PodEdge, Direction::Ingress, 80, (1, 2)),
            flow(Role::Uplink, Direction::Ingress, 80, (10, 0)),
            flow(Role::Uplink, Direction::Egress, 443, (3, 0)),
        ];
        let groups = group(&records, &[port()]);
        let told: Vec<_> = groups
            .iter()
            .map(|group| (group.role, group.values[0].clone(), group.sums.flows, group.sums.forward.packets))
            .collect();
        assert_eq!(
            told,
            [
                (Role::Uplink, Value::Integer(80), 2, 11),
                (Role::PodEdge, Value::Integer(80), 1, 1),
                (Role::Uplink, Value::Integer(443), 1, 3),
            ]
        );
        assert_eq!(groups[0].sums.ingress.packets, 12);
        assert_eq!(groups[0].sums.egress.packets, 1);
        let ranking = rank(groups, Some(1));
        assert_eq!(ranking.shown[0].sums.flows, 2);
        assert_eq!(
            ranking.others.iter().map(|(role, sums)| (*role, sums.flows)).collect::<Vec<_>>(),
            [(Role::PodEdge, 1), (Role::Uplink, 1)]
        );
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let role = prop::sample::select(Role::ALL.to_vec());
        let direction = prop::sample::select(Direction::ALL.to_vec());
        (role, direction, 1..4_u16, (0..1000_u64, 0..1000_u64))
            .prop_map(|(role, direction, port, packets)| flow(role, direction, port, packets))
    }

    proptest! {
        #[test]
        fn groups_and_the_largest_with_the_others_keep_every_sum(
            records in prop::collection::vec(any_record(), 0..40),
            fields in prop::sample::subsequence(FIELDS.iter().collect::<Vec<_>>(), 0..4),
            top in prop::option::of(0..8_usize),
        ) {
            let records: Vec<&Record> = records.iter().collect();
            let groups = group(records.iter().copied(), &fields);
            prop_assert_eq!(by_role(&groups), by_role(&records));
            let size = groups.len();
            let ranking = rank(groups, top);
            prop_assert_eq!(ranking.shown.len(), top.unwrap_or(size).min(size));
            let bytes = |group: &Group<'_>| group.sums.both().bytes;
            prop_assert!(ranking.shown.is_sorted_by_key(|group| Reverse(bytes(group))));
            let shown = ranking.shown.iter().map(Summed::role_and_sums);
            let all: Vec<(Role, Sums)> = shown.chain(ranking.others).collect();
            prop_assert_eq!(by_role(&all), by_role(&records));
        }
    }
}
