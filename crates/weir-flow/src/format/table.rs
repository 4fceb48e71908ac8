//! A table of the flows or groups of one interval, for a screen that is refreshed in place.
//!
//! The largest come first. `top` cuts the list and always adds `(others)`, one row for each role of which something
//! was left out. Below stands a total for each role, in what the interfaces received and sent. Rows have no control
//! characters and fit the width: less important columns go first, then long texts are cut (`…`).
//!
//! Rates are bytes per second of the interval; `SENT` goes from source to destination, `BACK` the other way. Numbers
//! are rounded to three digits with k, M, G, T for powers of a thousand.

#[cfg(test)]
mod tests;

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use crate::{
    Count, Counters, Detail, Direction, Endpoint, ProcessConfidence, Record, Role,
    field::{Field, TcpFlags, Value},
    format::printable,
    group::{Group, Ranking, Summed, Sums, by_role, group, rank},
};

/// How a table looks.
#[derive(Clone, Copy, Debug)]
pub struct TableOptions<'a> {
    /// Letters in a line.
    pub width: usize,
    /// Time over which the deltas of the records were counted.
    pub interval: Duration,
    /// Most rows besides `(others)`; without it, everything is shown.
    pub top: Option<usize>,
    /// Fields to group by; single flows where there are none.
    pub group_by: &'a [&'static Field],
    /// Sums of records that are not among those given; they count among the others and in the totals.
    pub rest: &'a [(Role, Sums)],
}

/// Appends a heading, a row for each flow or group, and the totals.
pub fn table<'r>(
    records: impl IntoIterator<Item = &'r Record>,
    options: &TableOptions<'_>,
    out: &mut String,
) {
    let records: Vec<&Record> = records.into_iter().collect();
    if !options.group_by.is_empty() {
        return group_table(group(records, options.group_by), options, out);
    }
    let totals = with_rest(&by_role(&records), options.rest);
    let ranking = rank(records, options.top);
    let ranking = Ranking { others: with_rest(&ranking.others, options.rest), ..ranking };
    write_table(flow_columns(&ranking, options), totals, options, out);
}

/// Appends the same of groups that are added up already, by the fields of `options.group_by`.
pub fn group_table(groups: Vec<Group<'_>>, options: &TableOptions<'_>, out: &mut String) {
    let totals = with_rest(&by_role(&groups), options.rest);
    let ranking = rank(groups, options.top);
    let ranking = Ranking { others: with_rest(&ranking.others, options.rest), ..ranking };
    write_table(group_columns(&ranking, options), totals, options, out);
}

fn write_table(
    columns: Vec<Column>,
    totals: Vec<(Role, Sums)>,
    options: &TableOptions<'_>,
    out: &mut String,
) {
    write_columns(fitted(columns, options.width), out);
    for (role, sums) in totals {
        let [in_bytes, out_bytes] =
            [sums.ingress, sums.egress].map(|count| Short(per_second(count, options.interval)));
        let packets = Short(sums.both().packets);
        let line = format!(
            "total {role}: {}, in {in_bytes}B/s, out {out_bytes}B/s, {packets} packets",
            flows(&sums)
        );
        out.push_str(&cut(line, options.width));
        out.push('\n');
    }
}

fn with_rest(sums: &[(Role, Sums)], rest: &[(Role, Sums)]) -> Vec<(Role, Sums)> {
    by_role(&[sums, rest].concat())
}

/// A column, from its heading down.
struct Column {
    cells: Vec<String>,
    is_number: bool,
    /// The column with the highest number goes first where there is too little room; 0 stays.
    goes: u8,
}

impl Column {
    fn text(heading: &str, goes: u8) -> Self {
        Self { cells: vec![heading.to_owned()], is_number: false, goes }
    }

    fn number(heading: &str, goes: u8) -> Self {
        Self { is_number: true, ..Self::text(heading, goes) }
    }

    fn width(&self) -> usize {
        self.cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

fn flow_columns(ranking: &Ranking<&Record>, options: &TableOptions<'_>) -> Vec<Column> {
    let mut columns = vec![
        Column::text("SOURCE", 0),
        Column::text("DESTINATION", 0),
        Column::text("PROTO", 0),
        Column::text("INTERFACE", 3),
        Column::number("SENT/s", 0),
        Column::number("BACK/s", 0),
        Column::number("PACKETS", 4),
        Column::number("TOTAL", 2),
        Column::number("AGE", 5),
        Column::text("FLAGS", 6),
        Column::text("PROCESS", 1),
    ];
    for record in &ranking.shown {
        let [sent, back, packets] = counters(&Sums::of(record), options.interval);
        let cells = [
            end(record, &record.source),
            end(record, &record.destination),
            protocol(record),
            interface(record),
            sent,
            back,
            packets,
            Short(record.total.count().bytes).to_string(),
            age(record.last - record.first),
            flags(&record.total),
            processes(record),
        ];
        push_row(&mut columns, cells);
    }
    for (name, sums) in others(ranking, options) {
        let [sent, back, packets] = counters(&sums, options.interval);
        push_row(&mut columns, [name, flows(&sums), String::new(), String::new(), sent, back, packets]);
    }
    // A column in which nothing stands takes no room.
    columns.retain(|column| column.goes == 0 || column.cells.iter().skip(1).any(|cell| !cell.is_empty()));
    columns
}

fn group_columns(ranking: &Ranking<Group<'_>>, options: &TableOptions<'_>) -> Vec<Column> {
    let names = options.group_by.iter().map(|field| Column::text(&field.name.to_uppercase(), 0));
    let mut columns: Vec<Column> = names.collect();
    columns.extend([
        Column::text("ROLE", 1),
        Column::number("FLOWS", 2),
        Column::number("SENT/s", 0),
        Column::number("BACK/s", 0),
        Column::number("PACKETS", 3),
    ]);
    for group in &ranking.shown {
        let values = group.values.iter().map(|value| match value {
            Value::Absent => "-".to_owned(),
            value => printable(&value.to_string()),
        });
        let counted = [group.role.to_string(), Short(group.sums.flows).to_string()];
        let counted = counted.into_iter().chain(counters(&group.sums, options.interval));
        push_row(&mut columns, values.chain(counted));
    }
    for (name, sums) in others(ranking, options) {
        let values =
            std::iter::once(name).chain(std::iter::repeat_n(String::new(), options.group_by.len() - 1));
        let counted = [String::new(), Short(sums.flows).to_string()];
        push_row(&mut columns, values.chain(counted).chain(counters(&sums, options.interval)));
    }
    columns
}

/// Name and sum of each row of others; with `top`, there is at least one.
fn others<T: Summed>(ranking: &Ranking<T>, options: &TableOptions<'_>) -> Vec<(String, Sums)> {
    if options.top.is_some() && ranking.others.is_empty() {
        return vec![("(others)".to_owned(), Sums::default())];
    }
    ranking.others.iter().map(|(role, sums)| (format!("(others, {role})"), *sums)).collect()
}

fn flows(sums: &Sums) -> String {
    format!("{} flow{}", Short(sums.flows), if sums.flows == 1 { "" } else { "s" })
}

fn push_row(columns: &mut [Column], cells: impl IntoIterator<Item = String>) {
    let mut cells = cells.into_iter();
    for column in columns {
        column.cells.push(cells.next().unwrap_or_default());
    }
}

fn counters(sums: &Sums, interval: Duration) -> [String; 3] {
    let rate = |count| Short(per_second(count, interval)).to_string();
    [rate(sums.forward), rate(sums.reverse), Short(sums.both().packets).to_string()]
}

/// Bytes.
fn per_second(count: Count, interval: Duration) -> u64 {
    let nanoseconds = interval.as_nanos().max(1);
    let rounded = (u128::from(count.bytes) * 1_000_000_000 + nanoseconds / 2) / nanoseconds;
    u64::try_from(rounded).unwrap_or(u64::MAX)
}

fn end(record: &Record, end: &Endpoint) -> String {
    match record.detail {
        Detail::Folded => "(folded)".to_owned(),
        Detail::Flow if record.tuple.has_ports() => SocketAddr::new(end.address, end.port).to_string(),
        Detail::Flow => end.address.to_string(),
    }
}

fn protocol(record: &Record) -> String {
    let mut text = Value::Protocol(record.tuple.protocol()).to_string();
    match record.tuple.icmp() {
        _ if record.detail == Detail::Folded => {}
        Some((kind, code)) => write!(text, " {kind}/{code}").expect("a string takes any text"),
        None if record.tuple.is_fragment() => text.push_str(" fragment"),
        None if record.tuple.is_truncated() => text.push_str(" truncated"),
        None => {}
    }
    text
}

/// Where it was seen, and which way the source sends.
fn interface(record: &Record) -> String {
    let way = match record.point.direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    };
    let netns = record.point.netns.as_ref().map(|netns| format!("{netns}/")).unwrap_or_default();
    printable(&format!("{netns}{} {way}", record.point.interface))
}

fn flags(total: &Counters) -> String {
    let flags = total.forward.tcp_flags | total.reverse.tcp_flags;
    if flags == 0 { String::new() } else { TcpFlags(flags).to_string() }
}

/// `curl > nginx`; the mark says that the process listens on the port, while the connection may be another's.
fn processes(record: &Record) -> String {
    let name = |end: &Endpoint| {
        end.process.as_ref().map(|process| {
            let mark = if process.confidence == ProcessConfidence::Proven { "" } else { "?" };
            printable(&format!("{}{mark}", process.executable))
        })
    };
    match (name(&record.source), name(&record.destination)) {
        (None, None) => String::new(),
        (Some(source), None) => source,
        (source, Some(destination)) => {
            format!("{}> {destination}", source.map(|it| it + " ").unwrap_or_default())
        }
    }
}

/// One number in the largest unit of time that it fills: `12s`, `3m`, `2h`, `5d`.
fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Drops columns, then shortens texts, until a line has at most `width` letters where that can be done.
fn fitted(mut columns: Vec<Column>, width: usize) -> Vec<Column> {
    let needed = |columns: &[Column]| {
        columns.iter().map(Column::width).sum::<usize>() + 2 * columns.len().saturating_sub(1)
    };
    while needed(&columns) > width {
        let droppable = columns.iter().enumerate().filter(|(_, column)| column.goes > 0);
        let Some((position, _)) = droppable.max_by_key(|(_, column)| column.goes) else { break };
        columns.remove(position);
    }
    while needed(&columns) > width {
        let texts = columns.iter_mut().filter(|column| !column.is_number);
        let Some(widest) = texts.max_by_key(|column| column.width()) else { break };
        let shorter = widest.width() - 1;
        if shorter < 4 {
            break;
        }
        for cell in &mut widest.cells {
            *cell = cut(std::mem::take(cell), shorter);
        }
    }
    columns
}

/// At most `width` letters, the last one `…` where some are missing.
fn cut(text: String, width: usize) -> String {
    if text.chars().count() <= width {
        return text;
    }
    text.chars().take(width.saturating_sub(1)).chain(std::iter::once('…')).take(width).collect()
}

fn write_columns(columns: Vec<Column>, out: &mut String) {
    let rows = columns.first().map_or(0, |column| column.cells.len());
    let columns: Vec<(usize, Column)> = columns.into_iter().map(|column| (column.width(), column)).collect();
    for row in 0..rows {
        let start = out.len();
        for (width, column) in &columns {
            if out.len() > start {
                out.push_str("  ");
            }
            let cell = &column.cells[row];
            let padded =
                if column.is_number { write!(out, "{cell:>width$}") } else { write!(out, "{cell:<width$}") };
            padded.expect("a string takes any text");
        }
        out.truncate(start + out[start..].trim_end().len());
        out.push('\n');
    }
}

/// A number in at most four letters and a unit: `999`, `1.23k`, `12.3M`, `123G`.
struct Short(u64);

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 < 1_000 {
            return write!(f, "{}", self.0);
        }
        let mut unit = 1_000_u64;
        for name in ["k", "M", "G", "T", "P"] {
            // In hundredths of the unit; rounding down, so that a number never jumps to the next unit.
            let hundredths = u128::from(self.0) * 100 / u128::from(unit);
            match hundredths {
                0..1_000 => return write!(f, "{}.{:02}{name}", hundredths / 100, hundredths % 100),
                1_000..10_000 => return write!(f, "{}.{}{name}", hundredths / 100, hundredths / 10 % 10),
                10_000..100_000 => return write!(f, "{}{name}", hundredths / 100),
                _ => unit *= 1_000,
            }
        }
        write!(f, "{}E", self.0 / 1_000_000_000_000_000_000)
    }
}
