//! `weir flows`: flows of the past, out of the files of the agent, from a database or from a running agent.
//!
//! All give the same answer, which goes to standard output in one of the formats of live flows. What the answer leaves
//! out is named on standard error.

use std::{
    env, fs,
    io::{self, BufWriter, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use weir_agent::{
    server::query::flows_answer,
    store::{DatabaseUrl, EmbeddedStore, FlowQuery, Limits, PostgresStore, Range, Store},
};
use weir_api::{
    client::{Client, ClientError, Credentials},
    history::{FlowsAnswer, FlowsParameters, Sums, moment_text},
};
use weir_flow::{
    Wall,
    field::{Kind, Value},
};

use crate::{
    cli::{FlowFormat, FlowsArgs, HistoryFormat, StorePlace, UsageError},
    clock, filter,
    show::{Printer, Room},
    terminal,
};

/// Longest time for reading files. Somebody waits for it, and nothing else does.
const LONGEST_READ: Duration = Duration::from_mins(10);

/// Variable that holds the token of an agent.
const TOKEN: &str = "WEIR_TOKEN";

pub(super) fn run(args: &FlowsArgs) -> Result<ExitCode> {
    let filter = filter::parse(args.filter())?;
    let now = clock::now();
    let range = Range { since: args.since.wall(now), until: args.until.wall(now) };
    if range.since >= range.until {
        let text = format!(
            "--since {} is not before --until {}",
            moment_text(range.since),
            moment_text(range.until)
        );
        return Err(UsageError(text).into());
    }
    let answer = if let Some(url) = &args.agent {
        ask(args, url, range)?
    } else {
        let store = open(&args.store)?;
        let rows = usize::try_from(args.limit).context("the limit is small")?;
        let limits = Limits { rows, time: LONGEST_READ };
        let query = FlowQuery { range, filter, group_by: args.group_by.clone(), limits };
        flows_answer(&store.flows(&query)?, &args.group_by)
    };
    print(args, &answer)?;
    for cut in &answer.coverage.cuts {
        writeln!(io::stderr(), "weir: {}", cut.text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn open(place: &StorePlace) -> Result<Box<dyn Store>> {
    Ok(match place {
        StorePlace::Directory(path) => Box::new(
            EmbeddedStore::open_read_only(path)
                .context("no history here; a running agent can be asked with --agent URL")?,
        ),
        StorePlace::Database(url) => {
            let url = DatabaseUrl::parse(url).map_err(|error| UsageError(format!("--store: {error}")))?;
            Box::new(PostgresStore::open(&url)?)
        }
    })
}

/// Asks a running agent.
fn ask(args: &FlowsArgs, url: &str, range: Range) -> Result<FlowsAnswer> {
    let token = match &args.token_file {
        Some(file) => {
            let text = fs::read_to_string(file);
            Some(
                text.with_context(|| format!("cannot read the token from {}", file.display()))?
                    .trim()
                    .to_owned(),
            )
        }
        None => env::var(TOKEN).ok(),
    };
    let credentials = Credentials {
        token,
        authority: args.ca_file.clone(),
        identity: args.cert_file.clone().zip(args.key_file.clone()),
    };
    let names: Vec<&str> = args.group_by.iter().map(|field| field.name).collect();
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let parameters = FlowsParameters {
        since: Some(moment_text(range.since)),
        until: Some(moment_text(range.until)),
        filter: given(args.filter().text()),
        group_by: given(names.join(",")),
        limit: usize::try_from(args.limit).ok(),
    };
    let answer = Client::new(url, credentials).and_then(|client| client.flows(&parameters));
    answer.map_err(|error| match error {
        ClientError::Address(_) | ClientError::UserInfo | ClientError::Refused { status: 400, .. } => {
            UsageError(error.to_string()).into()
        }
        error => error.into(),
    })
}

fn print(args: &FlowsArgs, answer: &FlowsAnswer) -> Result<()> {
    let format = match args.output {
        HistoryFormat::Table => FlowFormat::Table,
        HistoryFormat::Json => FlowFormat::Json,
        HistoryFormat::Csv => FlowFormat::Csv,
    };
    let mut printer = Printer::of_answers(format, args.group_by.clone());
    let [since, until] = [&answer.coverage.since, &answer.coverage.until].map(|text| wall(text));
    let length = Duration::from_nanos(until.saturating_sub(since)).max(Duration::from_secs(1));
    let room = Room { length, width: terminal::width(), lines: None };
    let others: Vec<_> = answer.others.iter().filter_map(Sums::read).collect();
    let mut text = String::new();
    printer.begin(&mut text);
    if args.group_by.is_empty() {
        printer.flows(&answer.records(), &others, &room, &mut text);
    } else {
        printer.groups(answer.groups(&args.group_by), &others, &room, &mut text);
    }
    let mut out = BufWriter::new(io::stdout());
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Nanoseconds since 1970.
fn wall(text: &str) -> u64 {
    match Value::read(Kind::Timestamp, text) {
        Some(Value::Timestamp(Wall(nanoseconds))) => nanoseconds,
        _ => 0,
    }
}
