//! Answers from sums.

use std::{collections::HashMap, time::Duration};

use foldhash::fast::FixedState;
use weir_flow::{Role, field::Value};

use super::{EmbeddedStore, LOOKS, lock};
use crate::store::{
    Coverage, Cut, Edge, EdgeKey, EdgeQuery, Edges, Level, Origin, Range, Series, SeriesQuery, StoreError,
    Traffic,
    answer::{edges_of, series_of},
    answering::wall,
    database::{self, Applied, Sum},
    log,
    rollup::{Pending, SumKey},
};

/// The coarsest level of which a step is a whole number of intervals.
pub(super) fn level_of(step: Duration) -> Option<Level> {
    let divides = |level: &Level| {
        step.subsec_nanos() == 0 && step.as_secs().is_multiple_of(level.seconds().cast_unsigned())
    };
    Level::ALL.into_iter().rev().find(divides)
}

impl EmbeddedStore {
    pub(super) fn summed_edges(&self, query: &EdgeQuery) -> Result<Edges, StoreError> {
        let minutes = query.range.until.0.saturating_sub(query.range.since.0) / 60_000_000_000;
        let level = match minutes {
            0..10 => Level::TenSeconds,
            10..1_440 => Level::Minute,
            _ => Level::Hour,
        };
        // By number first: that is one look-up per row without a text in it. `None` is what does not match.
        let mut numbered: HashMap<i64, Option<Edge>, FixedState> = HashMap::default();
        let mut sums: HashMap<EdgeKey, Traffic> = HashMap::new();
        let fields = query.filter.fields();
        let wanted = |key: &SumKey| !key.again && matches(&key.edge, query, &fields);
        let coverage =
            self.sums(query.range, level, &mut |Sum { number, key, traffic, .. }| match number {
                Some(number) => {
                    let edge = numbered.entry(number).or_insert_with(|| {
                        wanted(key).then(|| Edge { key: key.edge.clone(), traffic: Traffic::default() })
                    });
                    if let Some(edge) = edge {
                        edge.traffic += *traffic;
                    }
                }
                None if wanted(key) => *sums.entry(key.edge.clone()).or_default() += *traffic,
                None => {}
            })?;
        for edge in numbered.into_values().flatten() {
            *sums.entry(edge.key).or_default() += edge.traffic;
        }
        let edges = sums.into_iter().map(|(key, traffic)| Edge { key, traffic }).collect();
        Ok(edges_of(edges, Vec::new(), query.limits.rows, coverage))
    }

    pub(super) fn summed_series(
        &self,
        query: &SeriesQuery,
        step: Duration,
        level: Level,
    ) -> Result<Series, StoreError> {
        let seconds = i64::try_from(step.as_secs()).unwrap_or(i64::MAX);
        let (since, until) = level.around(query.range);
        let (since, until) = (since.div_euclid(seconds) * seconds, -(-until).div_euclid(seconds) * seconds);
        let range = Range { since: wall(since * 1_000), until: wall(until * 1_000) };
        let mut lines: Vec<(Role, Vec<Value<'static>>)> = Vec::new();
        let mut known: HashMap<(Role, Vec<Value<'static>>), usize> = HashMap::new();
        let mut line_of = |key: &SumKey| {
            let accepted = query.filter.select(1, &mut |field, test| {
                vec![key.edge.value(field.name).is_some_and(|value| test.accepts(&value))]
            });
            if key.again || accepted != [true] {
                return None;
            }
            let value =
                |name| key.edge.value(name).map_or(Value::Absent, |value| crate::store::batch::owned(&value));
            let line = (key.edge.role, query.group_by.iter().map(|field| value(field.name)).collect());
            let found = known.get(&line).copied();
            Some(found.unwrap_or_else(|| {
                lines.push(line.clone());
                known.insert(line, lines.len() - 1);
                lines.len() - 1
            }))
        };
        // By number first: that is one look-up per row without a text in it. `None` is what does not match.
        let mut numbered: HashMap<i64, Option<usize>, FixedState> = HashMap::default();
        let mut points: HashMap<(usize, i64), Traffic, FixedState> = HashMap::default();
        let coverage = self.sums(range, level, &mut |Sum { start, number, key, traffic }| {
            let line = match number {
                Some(number) => *numbered.entry(number).or_insert_with(|| line_of(key)),
                None => line_of(key),
            };
            if let Some(line) = line {
                *points.entry((line, (start - since) / seconds)).or_default() += *traffic;
            }
        })?;
        let intervals = usize::try_from((until - since) / seconds).unwrap_or_default();
        let points = points.into_iter().map(|((line, interval), traffic)| {
            (lines[line].clone(), usize::try_from(interval).unwrap_or_default(), traffic)
        });
        Ok(series_of(points, intervals, step, query, Coverage { range, ..coverage }))
    }

    /// Hands out the sums of the intervals that touch a span of time, those of the database and those that are pending.
    /// Where the level does not go back far enough, a coarser one that does is taken.
    fn sums(
        &self,
        range: Range,
        wanted: Level,
        each: &mut dyn FnMut(Sum<'_>),
    ) -> Result<Coverage, StoreError> {
        let mut reader = self.reader()?;
        let (level, oldest) = match &reader {
            Some(reader) => reach(reader, range, wanted)?,
            None => (wanted, None),
        };
        let span = level.around(range);
        let mut oldest_pending = None;
        let mut add = |sum: Sum<'_>| {
            oldest_pending = Some(oldest_pending.map_or(sum.start, |oldest: i64| oldest.min(sum.start)));
            if (span.0..span.1).contains(&level.interval_of(sum.start)) {
                each(sum);
            }
        };
        match &self.writer {
            Some(writer) => {
                // The lock keeps sums from moving to the database between the two looks.
                let writer = lock(writer);
                if let Some(reader) = &mut reader {
                    reader.sums(level, span, &mut add)?;
                }
                writer.pending().each(&mut add);
            }
            None => self.sums_of_files(reader.as_mut(), level, span, &mut add)?,
        }
        if let Some(reader) = reader {
            let mut readers = lock(&self.readers);
            if readers.len() < super::MOST_READERS {
                readers.push(reader);
            }
        }
        let (since, until) = (wall(span.0 * 1_000), wall(span.1 * 1_000));
        let begins = oldest.into_iter().chain(oldest_pending).min().map(|start| wall(start * 1_000));
        let cuts = begins.filter(|begins| *begins > range.since).map(Cut::Before).into_iter().collect();
        Ok(Coverage { range: Range { since, until }, origin: Origin::Rollup(level), cuts })
    }

    /// The same of a store that somebody else may be writing.
    fn sums_of_files(
        &self,
        reader: Option<&mut database::Reader>,
        level: Level,
        span: (i64, i64),
        add: &mut dyn FnMut(Sum<'_>),
    ) -> Result<(), StoreError> {
        let Some(reader) = reader else {
            return Ok(());
        };
        for look in 0..LOOKS {
            let mut sums: Vec<(i64, Option<i64>, SumKey, Traffic)> = Vec::new();
            let applied = reader.sums(level, span, &mut |Sum { start, number, key, traffic }| {
                sums.push((start, number, key.clone(), *traffic));
            })?;
            let Some(pending) = self.pending_of_files(applied, look + 1 == LOOKS)? else { continue };
            for (start, number, key, traffic) in &sums {
                add(Sum { start: *start, number: *number, key, traffic });
            }
            pending.each(add);
            break;
        }
        Ok(())
    }

    /// The sums of what is in logs and not in the database. `None` where a log went away meanwhile, unless this is the
    /// last look.
    fn pending_of_files(&self, applied: Applied, is_last_look: bool) -> Result<Option<Pending>, StoreError> {
        let mut pending = Pending::default();
        for number in self.directory.list()?.logs {
            if number < applied.log {
                continue;
            }
            let path = self.directory.log(number);
            let contents = match log::read(&path) {
                Ok(contents) => contents.unwrap_or_default(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if is_last_look {
                        continue;
                    }
                    return Ok(None);
                }
                Err(error) => return Err(StoreError::Read { file: path, error }),
            };
            let known = if number == applied.log { applied.frames } else { 0 };
            let known = usize::try_from(known).unwrap_or(usize::MAX);
            for batch in contents.batches.iter().skip(known).filter(|batch| batch.rows > 0) {
                pending.add(batch);
            }
        }
        Ok(Some(pending))
    }

    /// Every sum of one level, sightings that do not count included.
    #[cfg(test)]
    pub(super) fn every_sum(
        &self,
        range: Range,
        level: Level,
        each: &mut dyn FnMut(&SumKey, &Traffic),
    ) -> Result<(), StoreError> {
        self.sums(range, level, &mut |sum| each(sum.key, sum.traffic)).map(|_| ())
    }

    fn reader(&self) -> Result<Option<database::Reader>, StoreError> {
        if let Some(reader) = lock(&self.readers).pop() {
            return Ok(Some(reader));
        }
        database::Reader::open(&self.directory.database())
    }
}

/// The level to read, and where its sums begin.
fn reach(reader: &database::Reader, range: Range, wanted: Level) -> Result<(Level, Option<i64>), StoreError> {
    let mut chosen = (wanted, reader.oldest(wanted)?);
    for level in Level::ALL.into_iter().filter(|level| *level > wanted) {
        let (since, _) = chosen.0.around(range);
        if chosen.1.is_some_and(|oldest| oldest <= since) {
            break;
        }
        let oldest = reader.oldest(level)?;
        let finer = chosen.1.map_or(i64::MAX, |oldest| level.interval_of(oldest));
        if oldest.is_some_and(|oldest| oldest < finer) {
            chosen = (level, oldest);
        }
    }
    Ok(chosen)
}

fn matches(edge: &EdgeKey, query: &EdgeQuery, fields: &[&weir_flow::field::Field]) -> bool {
    fields.is_empty()
        || query.filter.select(1, &mut |field, test| {
            vec![edge.value(field.name).is_some_and(|value| test.accepts(&value))]
        }) == [true]
}
