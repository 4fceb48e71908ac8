//! House rules that no other tool checks: the shape of files, their names, words that should not be there, licences
//! and links between documents. Looks at every file that git knows or would add.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use cargo_metadata::MetadataCommand;

use crate::command;

/// Lines after which a Rust file certainly has a second subject.
const MOST_LINES: usize = 600;

/// Files that may be longer, each with the reason.
const LONGER: &[(&str, &str)] = &[];

/// Names that say nothing about what a module owns.
const EMPTY_NAMES: &[&str] = &["util", "utils", "misc", "helper", "helpers", "types", "manager", "common"];

/// Crates whose code runs in the kernel, where functions are reserved to GPL-compatible programs.
const KERNEL_CRATES: &[&str] = &["weir-common", "weir-packet", "weir-ebpf"];
const KERNEL_LICENCE: &str = "MIT OR GPL-2.0-only";
const LICENCE: &str = "Apache-2.0";

/// Fails with the list of everything that is against a rule.
pub(crate) fn check() -> anyhow::Result<()> {
    let mut complaints = Vec::new();
    for path in files()? {
        // What is not text has no lines to look at.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        complaints.extend(about_text(&path, &text));
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => complaints.extend(about_rust(&path, &text)),
            // Elsewhere lie parts of documents, whose links count from where the whole will be.
            Some("md") if path.starts_with("docs") || path.components().count() == 1 => {
                complaints.extend(about_links(&path, &text, &|target| target.exists()));
            }
            _ => {}
        }
    }
    complaints.extend(about_licences()?);
    if !complaints.is_empty() {
        bail!("\n  {}", complaints.join("\n  "));
    }
    Ok(())
}

/// Tracked files and new ones that are not ignored, as far as they exist.
fn files() -> anyhow::Result<Vec<PathBuf>> {
    let listed = command::output(Command::new("git").args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))
    .context("cannot list the files of the checkout")?;
    Ok(listed.split('\0').map(PathBuf::from).filter(|path| path.is_file()).collect())
}

fn about_rust(path: &Path, text: &str) -> Vec<String> {
    let shown = path.display();
    let mut complaints = Vec::new();
    // Tests are described by the module that they test.
    if !text.starts_with("//!") && !path.ends_with("tests.rs") {
        complaints.push(format!("{shown}:1: does not begin with `//!`, what the module owns and promises"));
    }
    let lines = text.lines().count();
    if lines > MOST_LINES && !LONGER.iter().any(|(longer, _)| Path::new(longer) == path) {
        complaints
            .push(format!("{shown}: {lines} lines, more than {MOST_LINES}: look for the second subject"));
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    if EMPTY_NAMES.contains(&&*name) {
        complaints.push(format!("{shown}: {name} says nothing about what the module owns"));
    }
    if name == "mod" {
        complaints.push(format!("{shown}: name the module's file after the module, beside its directory"));
    }
    complaints
}

/// Rules for text of any kind. The words are put together here so that this file keeps its own rules.
fn about_text(path: &Path, text: &str) -> Vec<String> {
    let later = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let machine = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/")];
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let place = || format!("{}:{}", path.display(), index + 1);
        for word in later {
            if line.contains(word) {
                complaints.push(format!("{}: {word}: do it or write down where it is planned", place()));
            }
        }
        for directory in machine {
            if line.contains(directory) {
                complaints.push(format!("{}: {directory} is a path of one machine", place()));
            }
        }
        let is_conflict =
            [concat!("<<<<", "<<< "), concat!(">>>>", ">>> ")].iter().any(|mark| line.starts_with(mark));
        if is_conflict {
            complaints.push(format!("{}: unresolved conflict", place()));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        complaints.push(format!("{}: does not end with a line feed", path.display()));
    }
    complaints
}

/// Links from one document to another file must lead somewhere. Links to the web are not followed.
fn about_links(path: &Path, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        in_code ^= line.trim_start().starts_with("```");
        if in_code {
            continue;
        }
        for target in
            line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
        {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            let joined = normal(&path.parent().unwrap_or(Path::new("")).join(file));
            if !exists(&joined) {
                complaints.push(format!("{}:{}: link to {target} leads nowhere", path.display(), index + 1));
            }
        }
    }
    complaints
}

/// Resolves `..` by text, so that the path can be compared with a list of files.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

fn about_licences() -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    for package in MetadataCommand::new().no_deps().exec()?.packages {
        let expected = if KERNEL_CRATES.contains(&package.name.as_str()) { KERNEL_LICENCE } else { LICENCE };
        if package.license.as_deref() != Some(expected) {
            complaints
                .push(format!("{}: its licence must be {expected}, not {:?}", package.name, package.license));
        }
    }
    for file in ["LICENSE-APACHE", "LICENSE-MIT", "LICENSE-GPL2"] {
        if !Path::new(file).is_file() {
            complaints.push(format!("{file} is missing"));
        }
    }
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_without_its_description_is_found() {
        assert_eq!(about_rust(Path::new("src/flow.rs"), "//! What.\n"), Vec::<String>::new());
        assert_eq!(about_rust(Path::new("src/flow.rs"), "use std::fs;\n").len(), 1);
        assert_eq!(about_rust(Path::new("src/flow/tests.rs"), "use super::*;\n"), Vec::<String>::new());
        assert_eq!(about_rust(Path::new("src/flow/utils.rs"), "//! What.\n").len(), 1);
        assert_eq!(about_rust(Path::new("src/flow/mod.rs"), "//! What.\n").len(), 1);
        assert_eq!(about_rust(Path::new("src/flow.rs"), &"//! Line.\n".repeat(MOST_LINES + 1)).len(), 1);
    }

    #[test]
    fn words_for_later_and_paths_of_a_machine_are_found() {
        let check =
            |text: &str, expect: usize| assert_eq!(about_text(Path::new("a"), text).len(), expect, "{text}");
        check("all is well\n", 0);
        check(concat!("// TO", "DO: more\n"), 1);
        check(concat!("see /ho", "me/me/notes\n"), 1);
        check("no line feed at the end", 1);
    }

    #[test]
    fn links_to_files_must_lead_somewhere() {
        let exists = |target: &Path| target == Path::new("docs/guide/filters.md");
        let check = |text: &str, expect: usize| {
            assert_eq!(
                about_links(Path::new("docs/operate/kernels.md"), text, &exists).len(),
                expect,
                "{text}"
            );
        };
        check("[filters](../guide/filters.md#nets) and [web](https://example.org)", 0);
        check("[here](#below)", 0);
        check("[gone](../guide/gone.md)", 1);
        check("```\n[gone](../guide/gone.md)\n```", 0);
    }
}
