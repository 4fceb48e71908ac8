//! The terminal: is there one, how large is it, and a block of lines that is refreshed in place.

use std::{
    env,
    io::{self, IsTerminal as _},
};

use rustix::termios::tcgetwinsize;

/// Width that is assumed where there is no terminal: pipes have room.
const UNBOUNDED: usize = usize::MAX;

/// Letters in a line and lines, if standard output is a terminal that knows.
pub(crate) fn size() -> Option<(usize, usize)> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = tcgetwinsize(&stdout).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col.into(), size.ws_row.into()))
}

/// Letters in a line of standard output.
pub(crate) fn width() -> usize {
    size().map_or(UNBOUNDED, |(columns, _)| columns)
}

/// Colours of marks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    /// Good.
    Green,
    /// Not so good.
    Yellow,
    /// Bad.
    Red,
}

/// The text in a colour, if standard output is a terminal and the user does not mind (<https://no-color.org>).
pub(crate) fn coloured(text: &str, colour: Colour) -> String {
    let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if is_unwanted || !io::stdout().is_terminal() {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Green => 32,
        Colour::Yellow => 33,
        Colour::Red => 31,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}
