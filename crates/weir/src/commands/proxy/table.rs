//! Plain tables: columns as wide as their longest text, numbers to the right.

use std::fmt::Write as _;

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Appends a heading and rows. The last column is not filled up.
pub(super) fn table<const N: usize>(heading: [(&str, Side); N], rows: &[[String; N]], out: &mut String) {
    let length = |text: &str| text.chars().count();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let texts = rows.iter().map(|row| length(&row[column]));
        texts.chain([length(heading[column].0)]).max().unwrap_or(0)
    });
    let mut line = |texts: [&str; N]| {
        let mut line = String::new();
        for (column, text) in texts.into_iter().enumerate() {
            let width = widths[column];
            match heading[column].1 {
                Side::Left => write!(line, "{text:<width$}"),
                Side::Right => write!(line, "{text:>width$}"),
            }
            .expect("a string takes any text");
            line.push_str("  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    };
    line(std::array::from_fn(|column| heading[column].0));
    for row in rows {
        line(std::array::from_fn(|column| row[column].as_str()));
    }
}

/// A time as people say it: `12 s`, `5 m 3 s`, `2 h 10 m`.
pub(super) fn seconds(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "times are positive and not that long"
    )]
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} m {} s", whole / 60, whole % 60),
        _ => format!("{} h {} m", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let mut out = String::new();
        let row = |name: &str, number: &str| [name.to_owned(), number.to_owned(), String::new()];
        let heading = [("RULE", Side::Left), ("N", Side::Right), ("WHY", Side::Left)];
        table(heading, &[row("web", "5"), row("longer", "1234")], &mut out);
        assert_eq!(out, "RULE       N  WHY\nweb        5\nlonger  1234\n");
        assert_eq!([seconds(3.9), seconds(63.0), seconds(7265.0)], ["3 s", "1 m 3 s", "2 h 1 m"]);
    }
}
