//! [`StateFile`]: writes the state, and remembers how rules are written, so that a change costs what has changed and one
//! copy of the rest.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{State, StateError, document_of};
use crate::redirect::{Source, rules::Rule};

/// Where the state is kept.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// In the order of the names of rules.
    texts: Vec<Written>,
}

/// A rule as it was written last.
#[derive(Debug)]
struct Written {
    rule: Arc<Rule>,
    source: Source,
    text: Box<str>,
}

impl StateFile {
    /// One at this path.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), texts: Vec::new() }
    }

    /// Writes it in place of the old one, which stays if this fails.
    pub fn write(&mut self, state: &State) -> Result<(), StateError> {
        let failed = |source| StateError::Write { path: self.path.clone(), source };
        let head = serde_json::to_string(&state.document()).map_err(|error| failed(error.into()))?;
        // All three are in the order of names.
        let mut before = std::mem::take(&mut self.texts).into_iter().peekable();
        let mut sources = state.sources.iter().peekable();
        for (name, rule) in &state.rules {
            while before.next_if(|known| known.rule.name < *name).is_some() {}
            while sources.next_if(|(other, _)| *other < name).is_some() {}
            let source = sources.next_if(|(other, _)| *other == name);
            let source = source.map_or(Source::Command, |(_, source)| *source);
            let known = before.next_if(|known| known.source == source && Arc::ptr_eq(&known.rule, rule));
            let written = if let Some(written) = known {
                written
            } else {
                let text = serde_json::to_string(&(source, document_of(rule)));
                let text = text.map_err(|error| failed(error.into()))?.into();
                Written { rule: Arc::clone(rule), source, text }
            };
            self.texts.push(written);
        }
        let beside = self.path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(self.text(&head).as_bytes())?;
            fs::rename(&beside, &self.path)
        };
        write().map_err(failed)
    }

    /// The rules come last in the file, one on each line.
    fn text(&self, head: &str) -> String {
        let length: usize = self.texts.iter().map(|written| written.text.len() + 2).sum();
        let mut text = String::with_capacity(head.len() + length + 16);
        text.push_str(head.strip_suffix('}').unwrap_or(head));
        text.push_str(",\"rules\":[");
        for (place, written) in self.texts.iter().enumerate() {
            text.push_str(if place == 0 { "\n" } else { ",\n" });
            text.push_str(&written.text);
        }
        text.push_str("]}\n");
        text
    }
}
