//! Parameters of requests.

use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

/// Parameters of `GET /api/v1/flows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FlowsParameters {
    /// Beginning: how long ago (`5m`), or a time (RFC 3339). Five minutes ago by default.
    pub since: Option<String>,
    /// End, in the same ways. Now by default.
    pub until: Option<String>,
    /// Which flows, in the language of filters. All by default.
    pub filter: Option<String>,
    /// Fields to group by, with commas between. Single flows by default.
    pub group_by: Option<String>,
    /// Most rows, up to 10000. A thousand by default.
    pub limit: Option<usize>,
}

/// Parameters of `GET /api/v1/edges`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EdgesParameters {
    /// Beginning: how long ago (`15m`), or a time (RFC 3339). Fifteen minutes ago by default.
    pub since: Option<String>,
    /// End, in the same ways. Now by default.
    pub until: Option<String>,
    /// Which flows, in the language of filters. Filters on workloads, ports and protocols are answered from sums.
    pub filter: Option<String>,
    /// `raw` reads raw flows, exact in time; sums grow the span to whole intervals.
    pub precision: Option<String>,
    /// Most edges, up to 10000. A thousand by default.
    pub limit: Option<usize>,
}

/// Parameters of `GET /api/v1/series`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SeriesParameters {
    /// Beginning: how long ago (`1h`), or a time (RFC 3339). An hour ago by default.
    pub since: Option<String>,
    /// End, in the same ways. Now by default.
    pub until: Option<String>,
    /// Length of an interval (`10s`, `1m`). About a hundred intervals by default.
    pub step: Option<String>,
    /// Which flows, in the language of filters.
    pub filter: Option<String>,
    /// Fields to group by, with commas between; one line for each role of interfaces by default.
    pub group_by: Option<String>,
    /// Most lines, up to 1000. Twenty by default.
    pub limit: Option<usize>,
}

/// Parameters of `GET /api/v1/hints`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HintsParameters {
    /// The field whose values are wanted; short names of one field work too.
    pub field: String,
    /// What the values begin with; the case of letters does not matter.
    pub prefix: Option<String>,
    /// Beginning: how long ago (`15m`), or a time (RFC 3339). Fifteen minutes ago by default.
    pub since: Option<String>,
    /// End, in the same ways. Now by default.
    pub until: Option<String>,
    /// Most values, up to 1000. Twenty by default.
    pub limit: Option<usize>,
}
