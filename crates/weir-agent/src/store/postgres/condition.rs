//! A filter as a condition in SQL. Everything that somebody typed is a bound parameter.
//!
//! The condition holds for every row that matches, and maybe for more: what SQL cannot say exactly is decided afterwards,
//! by the same code for all stores. So a part that is not exact is left out where it would have to be the other way round.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio_postgres::types::ToSql;
use weir_flow::{
    field::{Field, Kind, Value},
    filter::{Filter, Fit, Shape},
};

use crate::sinks::postgres::column_name;

/// A value that is bound.
pub(super) type Parameter = Box<dyn ToSql + Sync + Send>;

/// The part of a statement behind `WHERE`.
pub(super) struct Condition {
    /// Nothing, or ` AND (…)`.
    pub(super) sql: String,
    pub(super) parameters: Vec<Parameter>,
}

/// One part, which is true or false and never unknown.
struct Piece {
    sql: String,
    /// Whether it holds for no other rows than those that match.
    is_exact: bool,
}

/// Largest moment that is asked for, microseconds: the year 9999 ends.
const LAST_MICROSECOND: u64 = 253_402_300_799_999_999;

impl Condition {
    /// Of a filter, for a table that has these columns. The numbers of parameters begin behind those that are `taken`.
    pub(super) fn of(filter: &Filter, columns: &HashSet<String>, taken: usize) -> Self {
        let mut writer = Writer { columns, taken, parameters: Vec::new() };
        let piece = filter.shape().and_then(|shape| writer.piece(&shape));
        let sql = piece.map_or(String::new(), |piece| format!(" AND ({})", piece.sql));
        Self { sql, parameters: writer.parameters }
    }
}

struct Writer<'c> {
    columns: &'c HashSet<String>,
    taken: usize,
    parameters: Vec<Parameter>,
}

impl Writer<'_> {
    fn bind(&mut self, value: impl ToSql + Sync + Send + 'static) -> String {
        self.parameters.push(Box::new(value));
        format!("${}", self.taken + self.parameters.len())
    }

    /// `None` where nothing can be said, with no parameter of it left.
    fn piece(&mut self, shape: &Shape<'_>) -> Option<Piece> {
        let bound = self.parameters.len();
        let piece = self.whole_piece(shape);
        if piece.is_none() {
            self.parameters.truncate(bound);
        }
        piece
    }

    fn whole_piece(&mut self, shape: &Shape<'_>) -> Option<Piece> {
        match shape {
            Shape::All(parts) => {
                let pieces: Vec<Piece> = parts.iter().filter_map(|part| self.piece(part)).collect();
                let is_whole = pieces.len() == parts.len();
                (!pieces.is_empty()).then(|| joined(&pieces, " AND ", is_whole))
            }
            Shape::Any(parts) => {
                let pieces: Option<Vec<Piece>> = parts.iter().map(|part| self.piece(part)).collect();
                pieces.map(|pieces| joined(&pieces, " OR ", true))
            }
            Shape::Not(inner) => {
                let piece = self.piece(inner).filter(|piece| piece.is_exact)?;
                Some(Piece { sql: format!("NOT ({})", piece.sql), is_exact: true })
            }
            Shape::Fits(field, fits) => {
                let column = column_name(field);
                if !self.columns.contains(&column) {
                    // An agent that knew no such field wrote the rows.
                    return Some(never());
                }
                let pieces: Option<Vec<Piece>> =
                    fits.iter().map(|fit| self.fit(field, &column, fit)).collect();
                Some(pieces?).filter(|pieces| !pieces.is_empty()).map_or_else(
                    || Some(never()),
                    |pieces| {
                        let all = joined(&pieces, " OR ", true);
                        // Where there is no value, a comparison is unknown.
                        Some(Piece { sql: format!("({}) IS TRUE", all.sql), ..all })
                    },
                )
            }
        }
    }

    fn fit(&mut self, field: &Field, column: &str, fit: &Fit<'_>) -> Option<Piece> {
        let exact = |sql| Some(Piece { sql, is_exact: true });
        match (fit, field.kind) {
            (Fit::Prefix(address, length), Kind::Address) => {
                let prefix = self.bind(format!("{address}/{length}"));
                exact(format!("{column} <<= {prefix}::text::inet"))
            }
            (Fit::Between(low, high), kind) => Some(self.between(column, kind, *low, *high)),
            (Fit::Flags(flags), Kind::Flags) => {
                let flags = self.bind(flags.to_string());
                exact(format!("{column} = {flags}::text"))
            }
            (Fit::AllFlags(flags), Kind::Flags) => {
                let names: Vec<String> = flags.to_string().split('|').map(str::to_owned).collect();
                if flags.0 == 0 {
                    return exact("TRUE".to_owned()).map(|piece| Piece { is_exact: false, ..piece });
                }
                let names = self.bind(names);
                exact(format!("string_to_array({column}, '|') @> {names}::text[]"))
            }
            (Fit::Truth(truth), Kind::Boolean) => {
                let truth = self.bind(*truth);
                exact(format!("{column} = {truth}::boolean"))
            }
            // A database takes no zero bytes.
            (Fit::Text(text) | Fit::Like(text), _) if text.contains('\0') => None,
            (Fit::Text(text), Kind::Text) => {
                let text = self.bind((*text).to_owned());
                exact(format!("{column} = {text}::text"))
            }
            (Fit::Like(text), Kind::Text) => {
                let pattern = self.bind(like_pattern(text));
                // Of other collations, some fold `I` to something else than `i`.
                exact(format!("{column} COLLATE \"C\" ILIKE {pattern}::text"))
            }
            // Values of other kinds never fit.
            _ => Some(never()),
        }
    }

    fn between(&mut self, column: &str, kind: Kind, low: u64, high: u64) -> Piece {
        let sql = match kind {
            Kind::Port if low > u64::from(u16::MAX) => return never(),
            Kind::Port | Kind::Integer | Kind::Bytes => {
                let is_above = |number: u64| i64::try_from(number).is_err();
                // Numbers from 2^63 on are negative in the table; ports never get there.
                let (low_is_above, high_is_above) = (is_above(low), is_above(high));
                let high = if kind == Kind::Port { high.min(u64::from(u16::MAX)) } else { high };
                let joint = match (low_is_above, high_is_above && kind != Kind::Port) {
                    (false, true) => "OR",
                    _ => "AND",
                };
                let (low, high) = (self.bind(low.cast_signed()), self.bind(high.cast_signed()));
                format!("({column} >= {low}::bigint {joint} {column} <= {high}::bigint)")
            }
            Kind::Protocol => {
                let least = u8::try_from(low).ok();
                let most = u8::try_from(high).unwrap_or(u8::MAX);
                let Some(least) = least.filter(|least| *least <= most) else { return never() };
                let names: Vec<String> =
                    (least..=most).map(|number| Value::Protocol(number).to_string()).collect();
                let names = self.bind(names);
                format!("{column} = ANY ({names}::text[])")
            }
            Kind::Timestamp => {
                // Rows are exact to the microsecond.
                let moment = |microseconds: u64| -> SystemTime {
                    UNIX_EPOCH + Duration::from_micros(microseconds.min(LAST_MICROSECOND))
                };
                let low = self.bind(moment(low.div_ceil(1_000)));
                let high = self.bind(moment(high / 1_000));
                format!("({column} >= {low}::timestamptz AND {column} <= {high}::timestamptz)")
            }
            Kind::Duration => {
                // Seconds, as near as can be: some more, and the rest is decided afterwards.
                let seconds = |nanoseconds: u64| Duration::from_nanos(nanoseconds).as_secs_f64();
                let low = self.bind(seconds(low) * (1.0 - 1e-9) - 1e-9);
                let high = self.bind(seconds(high) * (1.0 + 1e-9) + 1e-9);
                let sql =
                    format!("({column} >= {low}::double precision AND {column} <= {high}::double precision)");
                return Piece { sql, is_exact: false };
            }
            Kind::Address | Kind::Flags | Kind::Boolean | Kind::Text => return never(),
        };
        Piece { sql, is_exact: true }
    }
}

fn never() -> Piece {
    Piece { sql: "FALSE".to_owned(), is_exact: true }
}

fn joined(pieces: &[Piece], word: &str, is_whole: bool) -> Piece {
    let sql: Vec<String> = pieces.iter().map(|piece| format!("({})", piece.sql)).collect();
    Piece { sql: sql.join(word), is_exact: is_whole && pieces.iter().all(|piece| piece.is_exact) }
}

/// The same pattern in the words of `LIKE`.
fn like_pattern(text: &str) -> String {
    let is_glob = text.contains(['*', '?']);
    let mut pattern = String::from(if is_glob { "" } else { "%" });
    for letter in text.chars() {
        match letter {
            '*' => pattern.push('%'),
            '?' => pattern.push('_'),
            '%' | '_' | '\\' => pattern.extend(['\\', letter]),
            letter => pattern.push(letter),
        }
    }
    if !is_glob {
        pattern.push('%');
    }
    pattern
}

#[cfg(test)]
mod tests {
    use weir_flow::field::FIELDS;

    use super::*;

    fn said(text: &str) -> (String, usize) {
        let columns = FIELDS.iter().map(column_name).filter(|name| name != "flow_vlan").collect();
        let condition = Condition::of(&text.parse().unwrap(), &columns, 2);
        (condition.sql, condition.parameters.len())
    }

    #[test]
    fn what_was_typed_is_bound_and_never_part_of_the_text() {
        let hostile = "x'); DROP TABLE flow; --";
        for text in [format!("iface=\"{hostile}\""), format!("iface~\"{hostile}\"")] {
            let (sql, parameters) = said(&text);
            assert!(!sql.contains("DROP") && sql.contains("$3"), "{sql}");
            assert_eq!(parameters, 1);
        }
    }

    #[test]
    fn what_is_not_exact_is_left_out_where_it_would_be_turned_round() {
        let (exact, two) = said("dport=53 and flow.duration>1s");
        assert!(exact.contains("flow_duration") && two == 4, "{exact}");
        let (without, one) = said("dport=53 and not flow.duration>1s");
        assert!(!without.contains("flow_duration") && one == 2, "{without}");
        assert_eq!(said("dport=53 or not flow.duration>1s"), (String::new(), 0));
        assert_eq!(said(""), (String::new(), 0));
    }

    #[test]
    fn a_field_without_column_has_no_value() {
        assert_eq!(said("flow.vlan=1"), (" AND (FALSE)".to_owned(), 0));
        assert_eq!(said("flow.vlan!=1"), (" AND (NOT (FALSE))".to_owned(), 0));
    }

    #[test]
    fn patterns_are_those_of_like() {
        for (text, pattern) in [
            ("eth", "%eth%"),
            ("eth*", "eth%"),
            ("?th_0", "_th\\_0"),
            ("50%", "%50\\%%"),
            ("a\\b", "%a\\\\b%"),
        ] {
            assert_eq!(like_pattern(text), pattern);
        }
    }
}
