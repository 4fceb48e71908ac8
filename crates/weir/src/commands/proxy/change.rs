//! `weir proxy rule`, `backend` and `apply`: what changes something.

use std::{
    fs,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use weir_agent::redirect::{
    Sources,
    diff::diff,
    proxy::merged,
    rules::{RuleSet, Rules, judge_set, parse_tree},
    state::State,
};
use weir_api::proxy::{ChangeAnswer, escaped};

use super::{client, refused};
use crate::cli::{
    UsageError,
    proxy::{AddArgs, ApplyArgs, BackendCommand, OneBackendArgs, ProxyPaths, RuleCommand, ShownFormat},
};

pub(super) fn rule(paths: &ProxyPaths, command: &RuleCommand) -> Result<ExitCode> {
    match command {
        RuleCommand::Add(args) => add(paths, args),
        RuleCommand::Rm(args) => {
            let path = format!("/v1/rules/{}?now={}", escaped(&args.name), args.now);
            let answer: ChangeAnswer = client(paths).call("DELETE", &path, None).map_err(refused)?;
            notes(&answer)?;
            Ok(ExitCode::SUCCESS)
        }
        RuleCommand::Drain(args) => drain(paths, &format!("/v1/rules/{}/drain", escaped(&args.name)), true),
        RuleCommand::Undrain(args) => {
            drain(paths, &format!("/v1/rules/{}/drain", escaped(&args.name)), false)
        }
    }
}

pub(super) fn backend(paths: &ProxyPaths, command: &BackendCommand) -> Result<ExitCode> {
    let path = |args: &OneBackendArgs| {
        format!("/v1/rules/{}/backends/{}", escaped(&args.name), escaped(&args.address))
    };
    match command {
        BackendCommand::Drain(args) => drain(paths, &format!("{}/drain", path(args)), true),
        BackendCommand::Undrain(args) => drain(paths, &format!("{}/drain", path(args)), false),
        BackendCommand::Weight(args) => {
            post(paths, &format!("{}/weight", path(&args.backend)), &json!({ "weight": args.weight }))
        }
    }
}

pub(super) fn apply(paths: &ProxyPaths, args: &ApplyArgs) -> Result<ExitCode> {
    let text = fs::read_to_string(&args.file)
        .with_context(|| format!("cannot read the rules file {}", args.file.display()))?;
    let wrong = |problems: &dyn std::fmt::Display| UsageError(format!("the rules are wrong:\n{problems}"));
    // Judged here already: what is wrong is said even where nobody runs to be asked.
    let rules = Rules::read(&text).map_err(|problems| wrong(&problems))?;
    let tree = parse_tree(&text).map_err(|problems| wrong(&problems))?;
    let path = format!("/v1/apply?dry_run={}", args.dry_run);
    let answer: ChangeAnswer = match client(paths).call("POST", &path, Some(&tree)) {
        Err(error) if error.is_absent() && args.dry_run => {
            let answer = compare(paths, &rules).map_err(|problems| wrong(&problems))?;
            writeln!(io::stderr(), "weir: no control process runs: compared with what the last one left")?;
            answer
        }
        answer => answer.map_err(refused)?,
    };
    match args.output {
        ShownFormat::Json => writeln!(io::stdout(), "{}", serde_json::to_string(&answer)?)?,
        ShownFormat::Table => {
            if args.diff {
                io::stdout().write_all(answer.diff.to_string().as_bytes())?;
            }
            notes(&answer)?;
            writeln!(io::stdout(), "{}", summary(&answer))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a control process would change that begins with the state of the last one.
fn compare(paths: &ProxyPaths, rules: &Rules) -> Result<ChangeAnswer, String> {
    let state = State::read(&paths.state).map_err(|error| error.to_string())?;
    let (old, sources) = match state {
        Some(state) => (state.rules, state.sources),
        None => (RuleSet::new(), Sources::new()),
    };
    let (new, _) = merged(&old, &sources, &rules.rules);
    judge_set(&new).map_err(|problems| problems.to_string())?;
    Ok(ChangeAnswer { diff: diff(&old, &new), is_applied: false, notes: Vec::new() })
}

fn add(paths: &ProxyPaths, args: &AddArgs) -> Result<ExitCode> {
    let path = format!("/v1/rules/{}?dry_run={}", escaped(&args.name), args.dry_run);
    let answer: ChangeAnswer = client(paths).call("PUT", &path, Some(&document(args))).map_err(refused)?;
    if args.dry_run {
        io::stdout().write_all(answer.diff.to_string().as_bytes())?;
    }
    notes(&answer)?;
    Ok(ExitCode::SUCCESS)
}

/// The rule as a file would have it; what was not said is left out.
fn document(args: &AddArgs) -> Value {
    fn word<T: ValueEnum>(value: Option<T>) -> Value {
        let name = value.and_then(|value| Some(value.to_possible_value()?.get_name().replace('-', "_")));
        name.map_or(Value::Null, Value::String)
    }
    let timeouts: Map<String, Value> =
        args.timeouts.iter().map(|(key, time)| (key.clone(), time.as_str().into())).collect();
    let pairs = [
        ("listen", json!(args.listen)),
        ("backends", json!(args.backends)),
        ("health", json!(args.health)),
        ("health_port", json!(args.health_port)),
        ("health_interval", json!(args.health_interval)),
        ("health_timeout", json!(args.health_timeout)),
        ("rise", json!(args.rise)),
        ("fall", json!(args.fall)),
        ("affinity", json!(args.affinity)),
        ("on_empty", word(args.on_empty)),
        ("on_full", word(args.on_full)),
        ("port_policy", word(args.port_policy)),
        ("timeouts", if timeouts.is_empty() { Value::Null } else { Value::Object(timeouts) }),
        ("new_per_second", json!(args.new_per_second)),
        ("drain_timeout", json!(args.drain_timeout)),
    ];
    let given = pairs.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(given.map(|(key, value)| (key.to_owned(), value)).collect())
}

fn drain(paths: &ProxyPaths, path: &str, is_drained: bool) -> Result<ExitCode> {
    post(paths, path, &json!({ "drain": is_drained }))
}

fn post(paths: &ProxyPaths, path: &str, body: &Value) -> Result<ExitCode> {
    let _: Value = client(paths).call("POST", path, Some(body)).map_err(refused)?;
    Ok(ExitCode::SUCCESS)
}

fn notes(answer: &ChangeAnswer) -> io::Result<()> {
    answer.notes.iter().try_for_each(|note| writeln!(io::stderr(), "weir: {note}"))
}

/// What happened, in a sentence.
fn summary(answer: &ChangeAnswer) -> String {
    use weir_api::proxy::Change;
    let count = |change| answer.diff.rules.iter().filter(|rule| rule.change == change).count();
    let (added, removed, changed) = (count(Change::Added), count(Change::Removed), count(Change::Changed));
    let done = if answer.is_applied { "applied" } else { "nothing was done; it would be" };
    format!("{done}: {added} added, {removed} removed, {changed} changed")
}
