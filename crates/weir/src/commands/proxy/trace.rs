//! `weir proxy trace`: why a packet would be diverted, or not.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
};

use anyhow::Result;
use weir_agent::redirect::{text::parse_tuple, trace::trace};
use weir_api::proxy::{TraceAnswer, escaped};

use super::{Source, refused, source};
use crate::cli::{
    UsageError,
    proxy::{ProxyPaths, ShownFormat, TraceArgs},
};

pub(super) fn run(paths: &ProxyPaths, args: &TraceArgs) -> Result<ExitCode> {
    let (connection, is_redirected) = match eaten_by_the_shell(&args.connection) {
        Some(whole) => (whole, true),
        None => (args.connection.clone(), false),
    };
    let tuple = parse_tuple(&connection).map_err(|error| UsageError(error.to_string()))?;
    let answer: TraceAnswer = match source(paths)? {
        Source::Process(client) => {
            client.get(&format!("/v1/trace?connection={}", escaped(&connection))).map_err(refused)?
        }
        Source::Left(left) => trace(&left.book(), &tuple)?,
    };
    let text = match args.output {
        ShownFormat::Json => serde_json::to_string(&answer)? + "\n",
        ShownFormat::Table => shown(&connection, &answer),
    };
    if is_redirected {
        let listen = tuple.listen;
        writeln!(
            io::stderr(),
            "weir: the shell took `>{listen}` for a file of that name, which is here now: put the connection in quotes"
        )?;
        io::stderr().write_all(text.as_bytes())?;
    } else {
        io::stdout().write_all(text.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Without quotes, `->` makes the shell write to a file called like the second half. What was meant is plain.
fn eaten_by_the_shell(connection: &str) -> Option<String> {
    let first = connection.strip_suffix('-')?;
    let file = fs::read_link("/proc/self/fd/1").ok()?;
    let name = file.file_name()?.to_str()?;
    name.parse::<SocketAddr>().ok()?;
    Some(format!("{first}->{name}"))
}

fn shown(connection: &str, answer: &TraceAnswer) -> String {
    let mut out = String::new();
    let verdict = match (answer.verdict.as_str(), &answer.backend) {
        ("diverted", Some(backend)) => format!("diverted to {backend}"),
        ("passed", _) => "not diverted".to_owned(),
        (verdict, _) => verdict.to_owned(),
    };
    writeln!(out, "{connection}: {verdict}").expect("a string takes any text");
    for step in &answer.steps {
        writeln!(out, "  {step}").expect("a string takes any text");
    }
    out
}
