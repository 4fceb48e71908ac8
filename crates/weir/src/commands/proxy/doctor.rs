//! `weir proxy doctor`: what on this machine could get in the way.
//!
//! Exit code 1 if something is.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Result;
use weir_agent::redirect::doctor::{Facts, Finding, Mark, judge, judge_sockets};
use weir_api::proxy::ProxyStatus;
use weir_datapath::redirect::{Place, PlaceState, Redirect};

use super::{client, refused};
use crate::{
    cli::{
        UsageError,
        proxy::{ProxyDoctorArgs, ProxyPaths, ShownFormat},
    },
    terminal::{self, Colour},
};

pub(super) fn run(paths: &ProxyPaths, args: &ProxyDoctorArgs) -> Result<ExitCode> {
    let status = match client(paths).get::<ProxyStatus>("/v1/status") {
        Ok(status) => Some(status),
        Err(error) if error.is_absent() => None,
        Err(error) => return Err(refused(error)),
    };
    let mut findings = vec![control_process(status.as_ref())];
    let pinned = Redirect::peek(&paths.root)?;
    let attached: Vec<PlaceState> = pinned.as_ref().map(Redirect::places).unwrap_or_default();
    let places: Vec<Place> = if args.interfaces.is_empty() {
        attached.iter().map(|it| Place { interface: it.interface.clone(), role: it.role }).collect()
    } else {
        args.interfaces.clone()
    };
    if places.is_empty() {
        let text = "no interface is attached: name one to look at, with -i";
        return Err(UsageError(text.to_owned()).into());
    }
    for place in &places {
        let state = attached.iter().find(|it| it.interface == place.interface);
        findings.extend(judge(place, state, &Facts::read(&place.interface)));
    }
    let trouble = status.as_ref().and_then(|status| status.sockets.trouble.as_deref());
    findings.push(judge_sockets(pinned.as_ref().map(Redirect::local).as_ref(), trouble));
    let mut text = String::new();
    match args.output {
        ShownFormat::Json => {
            for finding in &findings {
                writeln!(text, "{}", serde_json::to_string(finding)?)?;
            }
        }
        ShownFormat::Table => describe(&findings, &mut text),
    }
    io::stdout().write_all(text.as_bytes())?;
    let is_bad = findings.iter().any(|finding| finding.mark == Mark::No);
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn control_process(status: Option<&ProxyStatus>) -> Finding {
    let name = "control process".to_owned();
    let Some(status) = status else {
        let detail = "none runs: nothing is checked, and no connection is forgotten".to_owned();
        return Finding {
            mark: Mark::Less,
            name,
            detail,
            remedy: Some("weir proxy run --detach".to_owned()),
        };
    };
    let troubles: Vec<&str> =
        [&status.file_trouble, &status.trouble].into_iter().flatten().map(String::as_str).collect();
    let detail =
        format!("process {}; rules: {}, connections: {}", status.pid, status.rules, status.connections);
    if troubles.is_empty() {
        Finding { mark: Mark::Ok, name, detail, remedy: None }
    } else {
        Finding { mark: Mark::Less, name, detail: troubles.join("; "), remedy: None }
    }
}

fn describe(findings: &[Finding], out: &mut String) {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    for Finding { mark, name, detail, remedy } in findings {
        let (mark, colour) = match mark {
            Mark::Ok => ("ok  ", Colour::Green),
            Mark::Less => ("less", Colour::Yellow),
            Mark::No => ("no  ", Colour::Red),
        };
        let mark = terminal::coloured(mark, colour);
        writeln!(out, "{mark}  {name:<width$}  {detail}").expect("a string takes any text");
        if let Some(remedy) = remedy {
            writeln!(out, "{}-> {remedy}", " ".repeat(width + 8)).expect("a string takes any text");
        }
    }
}
