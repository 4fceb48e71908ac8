//! `GET /api/v1/fields` and `GET /api/v1/interfaces`: what can be asked for.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Every field of a flow, and the short names.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FieldsAnswer {
    /// The fields, in the order in which they are listed everywhere.
    pub fields: Vec<Field>,
    /// Short names for typing.
    pub aliases: Vec<Alias>,
}

/// A field.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Field {
    /// Its name, such as `source.address`.
    pub name: String,
    /// Sort of value: `address`, `port`, `protocol`, `integer`, `bytes`, `duration`, `timestamp`, `flags`, `boolean`, `text`.
    pub kind: String,
    /// Unit of the number, where there is one.
    pub unit: Option<String>,
    /// What it says.
    pub description: String,
    /// How many different values to expect: `low`, `medium`, `high`.
    pub cardinality: String,
    /// Whether a filter may use it.
    pub is_filterable: bool,
    /// Whether flows may be grouped by it.
    pub is_groupable: bool,
    /// Whether its values may be added.
    pub is_additive: bool,
    /// Every value it can have, where they are few.
    pub values: Vec<String>,
}

/// A short name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Alias {
    /// The name.
    pub name: String,
    /// What it stands for; two fields mean either end.
    pub fields: Vec<String>,
}

/// Interfaces that are counted, or were.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InterfacesAnswer {
    /// The interfaces, in the order in which they came.
    pub interfaces: Vec<Interface>,
    /// How many should be counted and are not.
    pub missing: usize,
}

/// An interface.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Network namespace, if it is not the agent's.
    pub netns: Option<String>,
    /// What it is for.
    pub role: String,
    /// Whether it is still counted.
    pub is_open: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What is wrong, and what to do.
    pub error: String,
}
