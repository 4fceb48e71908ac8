//! What people see of an interval: its flows or groups, the largest first, the rest summed up, in one of the formats.
//!
//! [`Printer`] turns records into text; it writes nothing itself and knows no clock.

#[cfg(test)]
mod tests;

use std::{cmp::Reverse, fmt::Write as _, time::Duration};

use weir_flow::{
    Record, Role,
    field::{FIELDS, Field, Value},
    format::{self, TableOptions},
    group::{Group, Sums, by_role, group, rank},
};

use crate::cli::{FlowFormat, ShowArgs, UsageError};

/// Names of the counters that groups have.
const COUNTERS: [&str; 5] =
    ["flow.count", "flow.packets", "flow.bytes", "flow.reverse.packets", "flow.reverse.bytes"];

/// The role, by which every group is told apart.
const ROLE: &str = "flow.observation";

/// What a line stands for.
const DETAIL: &str = "flow.detail";

/// Rows that a table may have for each one that is asked for, before the smallest are summed up.
const SLACK: usize = 2;

/// Turns the records of one interval after another into text.
///
/// An interval is [`Printer::begin`], [`Printer::take`] for each record, [`Printer::end`]. Formats that need no order
/// are written as records come; of others, no more records are kept than can be shown.
pub(crate) struct Printer {
    format: FlowFormat,
    group_by: Vec<&'static Field>,
    top: Option<usize>,
    /// Most rows of a table where the user asks for no number.
    limit: Option<usize>,
    kept: Vec<Record>,
    /// What was too small to be kept.
    rest: Vec<(Role, Sums)>,
    has_header: bool,
}

/// The local time that the log format shows for a record.
pub(crate) type TimeOf<'a> = &'a dyn Fn(&Record) -> String;

/// Room for a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Time over which the records were counted.
    pub(crate) length: Duration,
    /// Letters in a line.
    pub(crate) width: usize,
    /// Lines, if there is an end to them.
    pub(crate) lines: Option<usize>,
}

impl Printer {
    /// A printer for what the command line asks for. A table has at most `limit` rows besides the others, unless the
    /// user says how many.
    pub(crate) fn new(args: &ShowArgs, limit: Option<usize>) -> Result<Self, UsageError> {
        let format = args.output.unwrap_or(FlowFormat::Table);
        if format == FlowFormat::Log && !args.group_by.is_empty() {
            let text = "the log format shows single flows: use -o table, json or csv with --group-by";
            return Err(UsageError(text.to_owned()));
        }
        let (group_by, top) = (args.group_by.clone(), args.top);
        let limit = limit.filter(|_| format == FlowFormat::Table);
        Ok(Self { format, group_by, top, limit, kept: Vec::new(), rest: Vec::new(), has_header: false })
    }

    /// A printer for answers about the past, which are ranked and summed already.
    pub(crate) fn of_answers(format: FlowFormat, group_by: Vec<&'static Field>) -> Self {
        Self {
            format,
            group_by,
            top: None,
            limit: None,
            kept: Vec::new(),
            rest: Vec::new(),
            has_header: false,
        }
    }

    /// Appends flows that are ranked already, and the sums of the others.
    pub(crate) fn flows(&self, records: &[Record], others: &[(Role, Sums)], room: &Room, out: &mut String) {
        if self.format == FlowFormat::Table {
            let (width, interval) = (room.width, room.length);
            let options = TableOptions { width, interval, top: None, group_by: &[], rest: others };
            return format::table(records, &options, out);
        }
        for record in records {
            self.flow(record, &|_| String::new(), out);
        }
        self.some_others(others, out);
    }

    /// Appends groups that are ranked already, and the sums of the others.
    pub(crate) fn groups(
        &self,
        groups: Vec<Group<'static>>,
        others: &[(Role, Sums)],
        room: &Room,
        out: &mut String,
    ) {
        if self.format == FlowFormat::Table {
            let (width, interval, group_by) = (room.width, room.length, self.group_by.as_slice());
            let options = TableOptions { width, interval, top: None, group_by, rest: others };
            return format::group_table(groups, &options, out);
        }
        for group in &groups {
            self.sums(named_group(group, &self.group_by), out);
        }
        self.some_others(others, out);
    }

    /// The format that it prints.
    pub(crate) fn format(&self) -> FlowFormat {
        self.format
    }

    /// Begins an interval.
    pub(crate) fn begin(&mut self, out: &mut String) {
        match self.format {
            FlowFormat::Log => out.push_str("---\n"),
            FlowFormat::Csv if !self.has_header => {
                self.has_header = true;
                format::csv_values(self.columns().into_iter().map(|name| Value::Text(name.into())), out);
            }
            _ => {}
        }
    }

    /// Takes a record, and appends it if nothing has to be known of the others.
    pub(crate) fn take(&mut self, record: Record, time: TimeOf<'_>, out: &mut String) {
        let is_ordered = self.top.is_some() || !self.group_by.is_empty() || self.format == FlowFormat::Table;
        if !is_ordered {
            self.flow(&record, time, out);
            return;
        }
        self.kept.push(record);
        if let Some(limit) = self.top.or(self.limit).filter(|_| self.group_by.is_empty())
            && self.kept.len() > SLACK * limit.max(512)
        {
            self.kept.sort_by_cached_key(|record| Reverse(Sums::of(record).both().bytes));
            let smallest = self.kept.split_off(limit);
            self.rest.extend(by_role(&smallest.iter().collect::<Vec<_>>()));
            self.rest = by_role(&self.rest);
        }
    }

    /// Ends the interval: appends what was kept.
    pub(crate) fn end(&mut self, room: &Room, time: TimeOf<'_>, out: &mut String) {
        let (kept, rest) = (std::mem::take(&mut self.kept), std::mem::take(&mut self.rest));
        if self.format == FlowFormat::Table {
            let top = self.rows_shown(&kept, &rest, room);
            let (group_by, rest) = (self.group_by.as_slice(), rest.as_slice());
            let options = TableOptions { width: room.width, interval: room.length, top, group_by, rest };
            format::table(&kept, &options, out);
        } else if self.group_by.is_empty() {
            let ranking = rank(kept.iter().collect(), self.top);
            for record in ranking.shown {
                self.flow(record, time, out);
            }
            self.others(&by_role(&[ranking.others, rest].concat()), out);
        } else {
            let ranking = rank(group(&kept, &self.group_by), self.top);
            for group in &ranking.shown {
                self.sums(named_group(group, &self.group_by), out);
            }
            self.others(&ranking.others, out);
        }
        // The room of an unusual interval is not held for ever.
        self.kept = kept;
        self.kept.clear();
        self.kept.shrink_to(1024);
    }

    /// Rows of a table besides those of others; all if nothing says otherwise and they fit.
    fn rows_shown(&self, kept: &[Record], rest: &[(Role, Sums)], room: &Room) -> Option<usize> {
        if self.top.is_some() {
            return self.top;
        }
        let roles =
            by_role(&[by_role(&kept.iter().collect::<Vec<_>>()).as_slice(), rest].concat()).len().max(1);
        // The heading; for each role, a row of others and a total.
        let fitting = room.lines.map(|lines| lines.saturating_sub(1 + 2 * roles).max(1));
        let most = [self.limit, fitting].into_iter().flatten().min()?;
        (!rest.is_empty() || self.rows(kept) > most).then_some(most)
    }

    /// Appends one flow.
    fn flow(&self, record: &Record, time: TimeOf<'_>, out: &mut String) {
        match self.format {
            FlowFormat::Log => format::log_lines(record, &time(record), out),
            FlowFormat::Csv => format::csv_line(record, out),
            FlowFormat::Json | FlowFormat::Table => format::json_line(record, out),
        }
    }

    /// Flows or groups of these records.
    fn rows(&self, records: &[Record]) -> usize {
        if self.group_by.is_empty() { records.len() } else { group(records, &self.group_by).len() }
    }

    /// Columns of CSV.
    fn columns(&self) -> Vec<&'static str> {
        if self.group_by.is_empty() {
            return FIELDS.iter().map(|field| field.name).collect();
        }
        let is_new = |name: &&str| !self.group_by.iter().any(|field| field.name == *name);
        let fields = self.group_by.iter().map(|field| field.name);
        fields.chain([ROLE, DETAIL].into_iter().filter(is_new)).chain(COUNTERS).collect()
    }

    /// What did not make it into the first N, one line per role; with `--top`, there is at least one.
    fn others(&self, others: &[(Role, Sums)], out: &mut String) {
        if self.top.is_none() {
            return;
        }
        if others.is_empty() {
            self.other(None, &Sums::default(), out);
        }
        self.some_others(others, out);
    }

    /// The same, without a line where there is nothing.
    fn some_others(&self, others: &[(Role, Sums)], out: &mut String) {
        for (role, sums) in others {
            self.other(Some(*role), sums, out);
        }
    }

    fn other(&self, role: Option<Role>, sums: &Sums, out: &mut String) {
        if self.format == FlowFormat::Log {
            let of_role = role.map(|role| format!(", {role}")).unwrap_or_default();
            let (flows, both) = (sums.flows, sums.both());
            let counted = format!("flows={flows} packets={} bytes={}", both.packets, both.bytes);
            writeln!(out, "(others{of_role}) {counted}").expect("a string takes any text");
            return;
        }
        let role = role.map_or(Value::Absent, |role| Value::Text(role.as_str().into()));
        let detail = Value::Text("others".into());
        self.sums([(ROLE, role), (DETAIL, detail)].into_iter().chain(counters(sums)), out);
    }

    fn sums<'r>(&self, named: impl Iterator<Item = (&'static str, Value<'r>)>, out: &mut String) {
        if self.format != FlowFormat::Csv {
            format::json_object(named, out);
            return;
        }
        let named: Vec<_> = named.collect();
        let value = |column: &str| {
            let found = named.iter().find(|(name, _)| *name == column);
            found.map_or(Value::Absent, |(_, value)| value.clone())
        };
        format::csv_values(self.columns().into_iter().map(value), out);
    }
}

/// Names and values of a group; the role belongs to it, asked for or not.
fn named_group<'r>(
    group: &Group<'r>,
    fields: &[&'static Field],
) -> impl Iterator<Item = (&'static str, Value<'r>)> {
    let mut named: Vec<_> = fields.iter().map(|field| field.name).zip(group.values.iter().cloned()).collect();
    if !named.iter().any(|(name, _)| *name == ROLE) {
        named.push((ROLE, Value::Text(group.role.as_str().into())));
    }
    named.into_iter().chain(counters(&group.sums))
}

fn counters<'r>(sums: &Sums) -> impl Iterator<Item = (&'static str, Value<'r>)> + use<'r> {
    let (forward, reverse) = (sums.forward, sums.reverse);
    let numbers = [sums.flows, forward.packets, forward.bytes, reverse.packets, reverse.bytes];
    COUNTERS.into_iter().zip(numbers.map(Value::Integer))
}
