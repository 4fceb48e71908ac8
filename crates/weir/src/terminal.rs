//! The terminal: is there one, how large is it, and a block of lines that is refreshed in place.

use std::io::{self, IsTerminal as _};

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
