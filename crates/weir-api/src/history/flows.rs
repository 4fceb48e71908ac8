//! `GET /api/v1/flows`, and back to records and groups.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_flow::{
    Record,
    field::{FIELDS, Field, Value},
    group, record_of,
};

use super::{Coverage, Fields, role_of};
use crate::{
    ledger::Count,
    value::{from_json, to_json},
};

/// Flows, or groups of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowsAnswer {
    /// What this covers.
    pub coverage: Coverage,
    /// Flows, the most bytes first: the last record of each in the span, whose counters are those of the whole span.
    /// Null where groups were asked for.
    #[schema(value_type = Option<Vec<Object>>)]
    pub flows: Option<Vec<Fields>>,
    /// Groups, the most bytes first. Null where flows were asked for.
    pub groups: Option<Vec<Group>>,
    /// What is not among them, one sum for each role.
    pub others: Vec<Sums>,
    /// Everything, one sum for each role.
    pub totals: Vec<Sums>,
}

/// Flows that have the values of some fields in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// The values, by name of the field; those that are absent are left out.
    #[schema(value_type = Object)]
    pub values: Fields,
    /// Their sum.
    pub sums: Sums,
}

/// Flows at one role of interfaces, added up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sums {
    /// What the interfaces are for.
    pub role: String,
    /// Records.
    pub records: u64,
    /// From source to destination.
    pub forward: Count,
    /// From destination to source.
    pub reverse: Count,
    /// Received by the interfaces, whichever end opened the flow.
    pub ingress: Count,
    /// Sent by the interfaces.
    pub egress: Count,
}

impl Sums {
    /// The sum of one role.
    pub fn new(role: weir_flow::Role, sums: &group::Sums) -> Self {
        Self {
            role: role.as_str().to_owned(),
            records: sums.flows,
            forward: sums.forward.into(),
            reverse: sums.reverse.into(),
            ingress: sums.ingress.into(),
            egress: sums.egress.into(),
        }
    }

    /// The role and its sum; `None` where the role is not known here.
    pub fn read(&self) -> Option<(weir_flow::Role, group::Sums)> {
        let sums = group::Sums {
            flows: self.records,
            forward: self.forward.into(),
            reverse: self.reverse.into(),
            ingress: self.ingress.into(),
            egress: self.egress.into(),
        };
        Some((role_of(&self.role)?, sums))
    }
}

/// Every field of a record that is there.
pub fn fields_of(record: &Record) -> Fields {
    values_of(FIELDS.iter().map(|field| (field.name, field.value(record))))
}

/// Names and values, those that are there.
pub fn values_of<'v>(values: impl Iterator<Item = (&'static str, Value<'v>)>) -> Fields {
    let present = values.filter(|(_, value)| !value.is_absent());
    present.map(|(name, value)| (name.to_owned(), to_json(&value))).collect()
}

impl FlowsAnswer {
    /// The flows as records; what this version does not know is left out.
    pub fn records(&self) -> Vec<Record> {
        let flows = self.flows.iter().flatten();
        flows.map(|fields| record_of(&|name| value(fields, Field::by_name(name)))).collect()
    }

    /// The groups, with the values of these fields in this order.
    pub fn groups(&self, group_by: &[&'static Field]) -> Vec<group::Group<'static>> {
        let groups = self.groups.iter().flatten();
        groups
            .filter_map(|Group { values, sums }| {
                let (role, sums) = sums.read()?;
                let values = group_by.iter().map(|field| value(values, Some(field))).collect();
                Some(group::Group { values, role, sums })
            })
            .collect()
    }
}

fn value(fields: &Fields, field: Option<&Field>) -> Value<'static> {
    let found = field.and_then(|field| from_json(field.kind, fields.get(field.name)?));
    found.unwrap_or(Value::Absent)
}
