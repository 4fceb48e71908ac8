//! What people see of an interval: its flows or groups, the largest first, the rest summed up, in one of the formats.
//!
//! [`Printer`] turns records into text; it writes nothing itself and knows no clock.

#[cfg(test)]
mod tests;

use std::{fmt::Write as _, time::Duration};

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

/// Turns the records of one interval after another into text.
pub(crate) struct Printer {
    format: FlowFormat,
    group_by: Vec<&'static Field>,
    top: Option<usize>,
    /// Rows that fit the screen.
    fitting: Option<usize>,
    has_header: bool,
}

/// Records of one interval, and what is not in them.
pub(crate) struct Interval<'a> {
    /// The records.
    pub(crate) records: &'a [Record],
    /// Time over which they were counted.
    pub(crate) length: Duration,
    /// Letters in a line of a table.
    pub(crate) width: usize,
    /// The local time that the log format shows for a record.
    pub(crate) time: &'a dyn Fn(&Record) -> String,
}

impl Printer {
    /// A printer for what the command line asks for.
    pub(crate) fn new(args: &ShowArgs) -> Result<Self, UsageError> {
        let format = args.output.unwrap_or(FlowFormat::Table);
        if format == FlowFormat::Log && !args.group_by.is_empty() {
            let text = "the log format shows single flows: use -o table, json or csv with --group-by";
            return Err(UsageError(text.to_owned()));
        }
        Ok(Self { format, group_by: args.group_by.clone(), top: args.top, fitting: None, has_header: false })
    }

    /// The format that it prints.
    pub(crate) fn format(&self) -> FlowFormat {
        self.format
    }

    /// Lets a table of these records take at most so many lines, unless the user asked for a number of rows.
    pub(crate) fn fit(&mut self, records: &[Record], lines: usize) {
        let roles = by_role(&records.iter().collect::<Vec<_>>()).len().max(1);
        // The heading; for each role, a row of others and a total.
        self.fitting = Some(lines.saturating_sub(1 + 2 * roles).max(1));
    }

    /// Whether the text of a record depends on others, so that it cannot be printed before they are there.
    pub(crate) fn needs_all(&self) -> bool {
        let is_streamed = matches!(self.format, FlowFormat::Json | FlowFormat::Csv);
        !is_streamed || self.top.is_some() || !self.group_by.is_empty()
    }

    /// Appends the text of an interval.
    pub(crate) fn interval(&mut self, interval: &Interval<'_>, out: &mut String) {
        if self.format == FlowFormat::Table {
            let top = self.top.or(self.fitting);
            let (width, group_by) = (interval.width, self.group_by.as_slice());
            let options = TableOptions { width, interval: interval.length, top, group_by };
            format::table(interval.records, &options, out);
            return;
        }
        self.header(out);
        if self.group_by.is_empty() {
            // Without `--top`, flows stay in their order.
            let records: Vec<&Record> = interval.records.iter().collect();
            let (records, others) = match self.top {
                None => (records, Vec::new()),
                top => {
                    let ranking = rank(records, top);
                    (ranking.shown, ranking.others)
                }
            };
            for record in records {
                match self.format {
                    FlowFormat::Log => format::log_lines(record, &(interval.time)(record), out),
                    FlowFormat::Csv => format::csv_line(record, out),
                    FlowFormat::Json | FlowFormat::Table => format::json_line(record, out),
                }
            }
            self.others(&others, out);
        } else {
            let ranking = rank(group(interval.records, &self.group_by), self.top);
            for group in &ranking.shown {
                self.sums(named_group(group, &self.group_by), out);
            }
            self.others(&ranking.others, out);
        }
    }

    fn header(&mut self, out: &mut String) {
        match self.format {
            FlowFormat::Log => out.push_str("---\n"),
            FlowFormat::Csv if !self.has_header => {
                self.has_header = true;
                format::csv_values(self.columns().into_iter().map(|name| Value::Text(name.into())), out);
            }
            _ => {}
        }
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
        let none = [(None, Sums::default())];
        let some: Vec<_> = others.iter().map(|(role, sums)| (Some(*role), *sums)).collect();
        for (role, sums) in if some.is_empty() { none.as_slice() } else { &some } {
            if self.format == FlowFormat::Log {
                let of_role = role.map(|role| format!(", {role}")).unwrap_or_default();
                let (flows, both) = (sums.flows, sums.both());
                let counted = format!("flows={flows} packets={} bytes={}", both.packets, both.bytes);
                writeln!(out, "(others{of_role}) {counted}").expect("a string takes any text");
                continue;
            }
            let role = role.map_or(Value::Absent, |role| Value::Text(role.as_str().into()));
            let detail = Value::Text("others".into());
            self.sums([(ROLE, role), (DETAIL, detail)].into_iter().chain(counters(sums)), out);
        }
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
