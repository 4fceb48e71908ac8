//! The filter of the command line, and how an error in it is shown.

use clap::CommandFactory as _;
use weir_flow::filter::Filter;

use crate::cli::{Cli, FilterWords, UsageError};

/// Reads the words as a filter. An error shows the text with a caret below the place.
pub(crate) fn parse(words: FilterWords<'_>) -> Result<Filter, UsageError> {
    let text = words.text();
    Filter::parse(&text).map_err(|error| {
        let shown = error.caret(&text).replace('\n', "\n  ");
        let message = format!("bad filter: {error}\n\n  {shown}");
        if !is_a_word(&text) {
            return UsageError(message);
        }
        UsageError(format!("{message}\n\n`{text}` is no command either: {}", commands().join(", ")))
    })
}

/// Whether somebody may have meant a command.
fn is_a_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_ascii_lowercase())
}

fn commands() -> Vec<String> {
    Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}
