//! What a store is asked.

use std::time::Duration;

use weir_flow::{Wall, field::Field, filter::Filter};

/// A span of time: rows that were recorded at `since` or later, and before `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The beginning.
    pub since: Wall,
    /// The end, which is not part of it.
    pub until: Wall,
}

/// What a query may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most rows, edges, lines or values in the answer.
    pub rows: usize,
    /// Longest time for reading raw flows; what was read until then is the answer. The newest are read first.
    pub time: Duration,
}

/// Asks for edges.
#[derive(Clone, Debug)]
pub struct EdgeQuery {
    /// When.
    pub range: Range,
    /// Which flows.
    pub filter: Filter,
    /// What it may cost.
    pub limits: Limits,
    /// Whether sums may answer where they can; without them the raw flows do, to the millisecond.
    pub precision: Precision,
}

/// How exactly the time of a query is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// The intervals of the sums that touch the span of time.
    #[default]
    Rollup,
    /// Exactly, from raw flows.
    Raw,
}

/// Asks for a course over time.
#[derive(Clone, Debug)]
pub struct SeriesQuery {
    /// When.
    pub range: Range,
    /// Length of the intervals; at least a second. Without it, about a hundred of them.
    pub step: Option<Duration>,
    /// Which flows.
    pub filter: Filter,
    /// A line for each combination of values of these fields, besides the role.
    pub group_by: Vec<&'static Field>,
    /// What it may cost; `rows` is the number of lines.
    pub limits: Limits,
}

/// Asks for flows, or for groups of them.
#[derive(Clone, Debug)]
pub struct FlowQuery {
    /// When.
    pub range: Range,
    /// Which flows.
    pub filter: Filter,
    /// Fields that make a group; single flows where there are none.
    pub group_by: Vec<&'static Field>,
    /// What it may cost.
    pub limits: Limits,
}

/// Asks for values of a field.
#[derive(Clone, Debug)]
pub struct HintQuery {
    /// When.
    pub range: Range,
    /// The field.
    pub field: &'static Field,
    /// What the values, as text, begin with.
    pub prefix: String,
    /// What it may cost.
    pub limits: Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 1_000, time: Duration::from_secs(10) }
    }
}

/// Lengths of intervals that are easy to read.
const STEPS: [u64; 14] =
    [10, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400];

/// Intervals that a course has where nobody says how many, and at most.
const FEW: u32 = 100;
const MOST: u32 = 2_000;

impl SeriesQuery {
    /// Length of the intervals of a course.
    pub(super) fn step_length(&self) -> Duration {
        let length = Duration::from_nanos(self.range.until.0.saturating_sub(self.range.since.0));
        let least = length / MOST;
        self.step.map_or_else(
            || {
                let few = length / FEW;
                let step = STEPS.into_iter().map(Duration::from_secs).find(|step| *step >= few);
                step.unwrap_or_else(|| Duration::from_hours(24 * (few.as_secs() / 86_400 + 1)))
            },
            |step| {
                step.max(Duration::from_secs(1))
                    .max(Duration::from_secs(least.as_secs() + u64::from(least.subsec_nanos() > 0)))
            },
        )
    }
}

impl Range {
    /// Milliseconds since 1970 of the beginning and the end.
    pub(super) fn ms(&self) -> (i64, i64) {
        let ms = |nanoseconds: u64| i64::try_from(nanoseconds / 1_000_000).unwrap_or(i64::MAX);
        (ms(self.since.0), ms(self.until.0.saturating_add(999_999)))
    }
}
