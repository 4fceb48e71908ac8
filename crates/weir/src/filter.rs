//! The filter of the command line, and how an error in it is shown.

use weir_flow::filter::Filter;

use crate::cli::{FilterWords, UsageError};

/// Reads the words as a filter. An error shows the text with a caret below the place.
pub(crate) fn parse(words: FilterWords<'_>) -> Result<Filter, UsageError> {
    let text = words.text();
    Filter::parse(&text).map_err(|error| {
        let shown = error.caret(&text).replace('\n', "\n  ");
        UsageError(format!("bad filter: {error}\n\n  {shown}"))
    })
}
