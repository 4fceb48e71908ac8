//! Errors in one line: what failed, and after colons why.

use std::{error::Error, fmt::Write as _};

/// The error and what caused it, as in `cannot open FILE: permission denied`.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").expect("a string takes any text");
        cause = error.source();
    }
    text
}
