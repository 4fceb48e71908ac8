//! Parameters of a request, judged: what is left is a question that makes sense.

use std::time::Duration;

use weir_api::history::{BadParameter, Moment};
use weir_flow::{
    Wall,
    field::{Field, Subject, nearest_name},
    filter::Filter,
};

use crate::{
    store::{EdgeQuery, FlowQuery, HintQuery, Limits, Precision, Range, SeriesQuery},
    units::parse_duration,
};

/// Most rows of flows, groups or edges, and of lines or values.
const MOST_ROWS: usize = 10_000;
const MOST_LINES: usize = 1_000;

/// Most fields to group by.
const MOST_FIELDS: usize = 8;

/// Parameters that nobody has looked at yet.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// The question of `GET /api/v1/flows`.
    pub(super) fn flows(&mut self, now: Wall, time: Duration) -> Result<FlowQuery, BadParameter> {
        let query = FlowQuery {
            range: self.range(now, Duration::from_mins(5))?,
            filter: self.filter()?,
            group_by: self.group_by()?,
            limits: Limits { rows: self.limit(1_000, MOST_ROWS)?, time },
        };
        self.done(&["since", "until", "filter", "group_by", "limit"])?;
        Ok(query)
    }

    /// The question of `GET /api/v1/edges`.
    pub(super) fn edges(&mut self, now: Wall, time: Duration) -> Result<EdgeQuery, BadParameter> {
        let query = EdgeQuery {
            range: self.range(now, Duration::from_mins(15))?,
            filter: self.filter()?,
            limits: Limits { rows: self.limit(1_000, MOST_ROWS)?, time },
            precision: match self.take("precision")?.as_deref() {
                None | Some("rollup") => Precision::Rollup,
                Some("raw") => Precision::Raw,
                Some(other) => return Err(bad("precision", other, "use raw or rollup")),
            },
        };
        self.done(&["since", "until", "filter", "precision", "limit"])?;
        Ok(query)
    }

    /// The question of `GET /api/v1/nodes`: as many edges as can be had, and how many nodes are wanted.
    pub(super) fn nodes(&mut self, now: Wall, time: Duration) -> Result<(EdgeQuery, usize), BadParameter> {
        let mut query = self.edges(now, time)?;
        let rows = std::mem::replace(&mut query.limits.rows, MOST_ROWS);
        Ok((query, rows))
    }

    /// The question of `GET /api/v1/series`.
    pub(super) fn series(&mut self, now: Wall, time: Duration) -> Result<SeriesQuery, BadParameter> {
        let query = SeriesQuery {
            range: self.range(now, Duration::from_hours(1))?,
            step: self.step()?,
            filter: self.filter()?,
            group_by: self.group_by()?,
            limits: Limits { rows: self.limit(20, MOST_LINES)?, time },
        };
        self.done(&["since", "until", "step", "filter", "group_by", "limit"])?;
        Ok(query)
    }

    /// The question of `GET /api/v1/hints`.
    pub(super) fn hints(&mut self, now: Wall, time: Duration) -> Result<HintQuery, BadParameter> {
        let field =
            self.take("field")?.ok_or_else(|| bad("field", "", "name a field, such as source.address"))?;
        let query = HintQuery {
            field: field_of("field", &field)?,
            prefix: self.take("prefix")?.unwrap_or_default(),
            range: self.range(now, Duration::from_mins(15))?,
            limits: Limits { rows: self.limit(20, MOST_LINES)?, time },
        };
        self.done(&["field", "prefix", "since", "until", "limit"])?;
        Ok(query)
    }

    /// The value of a parameter, which may be given once.
    fn take(&mut self, name: &str) -> Result<Option<String>, BadParameter> {
        let found: Vec<String> =
            self.0.extract_if(.., |(candidate, _)| candidate == name).map(|(_, value)| value).collect();
        if let [_, second, ..] = found.as_slice() {
            return Err(bad(name, second, "give it once"));
        }
        Ok(found.into_iter().next().filter(|value| !value.is_empty()))
    }

    /// Refuses what is left over.
    fn done(&self, known: &[&str]) -> Result<(), BadParameter> {
        match self.0.first() {
            None => Ok(()),
            Some((name, value)) => {
                Err(bad(name, value, &format!("there is no such parameter: use {}", known.join(", "))))
            }
        }
    }

    fn range(&mut self, now: Wall, length: Duration) -> Result<Range, BadParameter> {
        let mut moment = |name: &str, default| match self.take(name)? {
            None => Ok(default),
            Some(text) => {
                let moment: Moment = text.parse().map_err(|remedy: String| bad(name, &text, &remedy))?;
                Ok(moment.wall(now))
            }
        };
        let until = moment("until", now)?;
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let since = moment("since", Wall(until.0.saturating_sub(length)))?;
        if since >= until {
            let shown = weir_api::history::moment_text(since);
            return Err(bad("since", &shown, "must be before `until`, which is now by default"));
        }
        Ok(Range { since, until })
    }

    fn filter(&mut self) -> Result<Filter, BadParameter> {
        let text = self.take("filter")?.unwrap_or_default();
        Filter::parse(&text)
            .map_err(|error| bad("filter", &text, &format!("{error}, at byte {}", error.position)))
    }

    fn group_by(&mut self) -> Result<Vec<&'static Field>, BadParameter> {
        let text = self.take("group_by")?.unwrap_or_default();
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let fields = names.map(|name| field_of("group_by", name)).collect::<Result<Vec<_>, _>>()?;
        if fields.len() > MOST_FIELDS {
            return Err(bad("group_by", &text, &format!("use at most {MOST_FIELDS} fields")));
        }
        Ok(fields)
    }

    fn step(&mut self) -> Result<Option<Duration>, BadParameter> {
        let Some(text) = self.take("step")? else { return Ok(None) };
        let step = parse_duration(&text).map_err(|remedy| bad("step", &text, &remedy))?;
        if step < Duration::from_secs(1) {
            return Err(bad("step", &text, "use a second or more"));
        }
        Ok(Some(step))
    }

    fn limit(&mut self, default: usize, most: usize) -> Result<usize, BadParameter> {
        let Some(text) = self.take("limit")? else { return Ok(default) };
        let limit = text.parse().ok().filter(|limit| (1..=most).contains(limit));
        limit.ok_or_else(|| bad("limit", &text, &format!("use a number from 1 to {most}")))
    }
}

/// A field that rows can be grouped by.
fn field_of(parameter: &str, name: &str) -> Result<&'static Field, BadParameter> {
    match Subject::by_name(name) {
        Some(Subject::One(field)) if field.groupable => Ok(field),
        Some(Subject::One(field)) => {
            Err(bad(parameter, name, &format!("`{}` has too many values to group by", field.name)))
        }
        Some(Subject::Either { source, destination, .. }) => Err(bad(
            parameter,
            name,
            &format!("it means either end: use {} or {}", source.name, destination.name),
        )),
        None => {
            let near = nearest_name(name).map(|near| format!("there is no such field, did you mean {near}?"));
            let remedy = near.unwrap_or_else(|| "there is no such field: see /api/v1/fields".to_owned());
            Err(bad(parameter, name, &remedy))
        }
    }
}

fn bad(parameter: &str, value: &str, remedy: &str) -> BadParameter {
    BadParameter {
        error: format!("bad value of `{parameter}`: `{value}`: {remedy}"),
        parameter: parameter.to_owned(),
        value: value.to_owned(),
        remedy: remedy.to_owned(),
    }
}
