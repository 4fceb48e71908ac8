//! `weir tap`: what chosen processes say and hear, call by call, or as a file.
//!
//! What happens is told on standard error: when the tap is open, from time to time on a terminal, and the ledger at the end.
//! Exit code 1 if the ledger does not add up.

mod selfcheck;

use std::{
    env,
    io::{self, IsTerminal as _, Write},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use jiff::tz::TimeZone;
use weir_agent::{
    private_file,
    signals::Stop,
    tap::{
        self, Audit, Ending, Har, Json, Order, Outcome, Output, Owner, Packets, Progress, Running, Selection,
        Selector, SessionSettings, Text, Writer, wanted,
    },
    units::Grouped,
};
use weir_datapath::tap::{Limits, Payload, Settings};
use weir_l7::{Keep, conversation::Redaction};

use crate::{
    cli::{
        UsageError,
        tap::{TapArgs, TapCommand, TapFormat, TapOptions},
    },
    clock, filter,
};

/// Bytes of the ring: room for what comes while the disk is slow.
const RING: u32 = 64 << 20;

/// Bytes of bodies that are kept for details, and for an archive.
const BODY: usize = 4 << 10;
const ARCHIVED_BODY: usize = 256 << 10;

/// How often progress is shown on a terminal.
const REFRESH: Duration = Duration::from_secs(1);

pub(super) fn run(args: &TapArgs) -> Result<ExitCode> {
    match args.command {
        Some(TapCommand::Selfcheck) => selfcheck::run(),
        None => tap_with(&args.options),
    }
}

fn tap_with(options: &TapOptions) -> Result<ExitCode> {
    let order = order(options)?;
    let format = format(options);
    if options.verbose && !matches!(format, TapFormat::Text | TapFormat::Json) {
        return Err(UsageError("-v adds to text and json alone".to_owned()).into());
    }
    if order.payload == Payload::None && matches!(format, TapFormat::Pcapng | TapFormat::Har) {
        let text = "there is nothing to write without payload: add --payload headers or --payload full";
        return Err(UsageError(text.to_owned()).into());
    }
    if options.unix && format == TapFormat::Pcapng {
        return Err(UsageError(
            "packets cannot be made of Unix sockets: use -o text, json or har".to_owned(),
        )
        .into());
    }
    let mut selector = Selector::start(&order.selection)?;
    // Before anything is written: whoever is not there cannot be tapped.
    let cgroups = selector.cgroups(&order.selection).map_err(select_error)?;
    let audit = Audit::open(&options.audit)?;
    let (target, name) = target(options, format)?;
    let settings = Settings {
        tier: options.tier.into(),
        ring: RING,
        count_messages: options.each_message,
        unix: options.unix,
        ..Settings::default()
    };
    // What needs privileges was before this, and other threads come after it.
    let tap = tap::open(&settings)?;
    selector.watch()?;
    let stop = Stop::on_signals().context("cannot listen for signals")?;
    let writer = Writer::start(target, &name, stop.clone(), order.ttl).context("cannot start a thread")?;
    let mut output = output(options, format, writer, &order, &name)?;
    let session = SessionSettings {
        keep: keep(options, format),
        redaction: if order.is_redacted { Redaction::On } else { Redaction::Off },
        protocol: options.decode.into(),
        ..SessionSettings::default()
    };
    let mut teller = Teller::new(&order, &name);
    let running = Running { order, tap, cgroups, session, selector, audit, output_name: name };
    let result = tap::run(running, output.as_mut(), &stop, &mut |progress| teller.tell(progress));
    teller.clear();
    let Outcome { summary, ending, written, failure } = result?;
    let mut text = format!("{summary}\n");
    if ending == Ending::Expired {
        text.push_str("the time is over: --ttl gives it more\n");
    }
    let faults = summary.faults();
    for fault in &faults {
        text.extend(["weir: ", fault, "\n"]);
    }
    io::stderr().write_all(text.as_bytes())?;
    if let Some(failure) = failure {
        return Err(failure.into());
    }
    written?;
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn select_error(error: tap::SelectError) -> anyhow::Error {
    if error.is_usage() { UsageError(error.to_string()).into() } else { error.into() }
}

fn order(options: &TapOptions) -> Result<Order> {
    let filter = filter::parse(options.filter())?;
    let order = Order {
        selection: Selection {
            all: options.all,
            pids: options.pids.clone(),
            commands: options.commands.clone(),
            containers: options.containers.clone(),
            pods: options.pods.clone(),
            cgroups: options.cgroups.clone(),
        },
        wanted: wanted(&filter).map_err(UsageError)?,
        role: options.role.into(),
        payload: payload(options),
        limits: Limits {
            call: options.limit,
            connection: options.connection_limit,
            per_second: options.budget,
        },
        ttl: options.ttl,
        owner: owner(),
        reason: options.reason.clone(),
        is_redacted: !options.no_redact,
    };
    order.check().map_err(|error| UsageError(error.to_string()).into())
}

/// Who asks: behind sudo, the one who called it. Anybody may set sudo's variables, so that only root is believed.
fn owner() -> Owner {
    let user = rustix::process::getuid().as_raw();
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let by_sudo = variable("SUDO_USER").zip(variable("SUDO_UID").and_then(|number| number.parse().ok()));
    match by_sudo {
        Some((name, number)) if user == 0 => Owner { name, user: number },
        _ => Owner { name: variable("USER").unwrap_or_else(|| user.to_string()), user },
    }
}

/// Nothing is copied that nobody asked for. Calls as JSON are made of what is copied, so whoever wants them asks for it; whoever
/// wants to see secrets has to say more.
fn payload(options: &TapOptions) -> Payload {
    let are_calls_wanted = format(options) == TapFormat::Json && !options.no_redact;
    let usual = if are_calls_wanted { Payload::Headers } else { Payload::None };
    options.payload.map_or(usual, Into::into)
}

/// What was asked for, or what the name of the file says.
fn format(options: &TapOptions) -> TapFormat {
    let by_name = || match options.write.as_deref()?.extension()?.to_str()? {
        "har" => Some(TapFormat::Har),
        "json" | "jsonl" | "ndjson" => Some(TapFormat::Json),
        "txt" | "log" => Some(TapFormat::Text),
        _ => None,
    };
    let usual = if options.write.is_some() { TapFormat::Pcapng } else { TapFormat::Text };
    options.output.or_else(by_name).unwrap_or(usual)
}

fn keep(options: &TapOptions, format: TapFormat) -> Keep {
    match format {
        TapFormat::Har => Keep { headers: true, body_bytes: ARCHIVED_BODY },
        TapFormat::Text | TapFormat::Json if options.verbose => Keep { headers: true, body_bytes: BODY },
        TapFormat::Text | TapFormat::Json | TapFormat::Pcapng => Keep::default(),
    }
}

/// Opens what is written to, and says how it is called.
fn target(options: &TapOptions, format: TapFormat) -> Result<(Box<dyn Write + Send>, String)> {
    match &options.write {
        Some(path) if path != Path::new("-") => {
            let name = path.display().to_string();
            let file = private_file::create(path).with_context(|| format!("cannot write {name}"))?;
            Ok((Box::new(file), name))
        }
        _ => {
            if format == TapFormat::Pcapng && io::stdout().is_terminal() {
                let text = "a pcapng file is not for a terminal: use -w FILE, or a pipe";
                return Err(UsageError(text.to_owned()).into());
            }
            Ok((Box::new(io::stdout()), "standard output".to_owned()))
        }
    }
}

fn output(
    options: &TapOptions,
    format: TapFormat,
    writer: Writer,
    order: &Order,
    name: &str,
) -> Result<Box<dyn Output>> {
    let tells_connections = order.payload == Payload::None;
    Ok(match format {
        TapFormat::Text => {
            Box::new(Text::new(writer, TimeZone::system(), options.verbose, tells_connections))
        }
        TapFormat::Json => Box::new(Json::new(writer, options.verbose, tells_connections)),
        TapFormat::Har => Box::new(Har::new(writer)),
        TapFormat::Pcapng => {
            let packets = Packets::new(writer, &order.to_string(), clock::now().0);
            Box::new(packets.with_context(|| format!("cannot write {name}"))?)
        }
    })
}

/// Tells what happens on standard error.
struct Teller {
    order: String,
    end: String,
    tells_calls: bool,
    /// Whether a line is shown that is written over again and again.
    is_refreshed: bool,
    has_shown: bool,
    next: Instant,
}

impl Teller {
    fn new(order: &Order, name: &str) -> Self {
        let end = order.ttl.map_or_else(String::new, |ttl| {
            format!(", until {} (--ttl)", clock::local_time(clock::now() + ttl))
        });
        // Lines of calls on the same terminal would be torn apart.
        let is_refreshed =
            io::stderr().is_terminal() && (name != "standard output" || !io::stdout().is_terminal());
        let tells_calls = order.payload != Payload::None;
        Self {
            order: order.to_string(),
            end,
            tells_calls,
            is_refreshed,
            has_shown: false,
            next: Instant::now(),
        }
    }

    // Where standard error is gone, there is nobody to tell.
    fn tell(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Began { chosen, existing } => {
                let mut text = format!("weir: tapping {}{}\n", self.order, self.end);
                let line = format!("weir: by {}, {existing} sockets were open\n", chosen.tier);
                text.push_str(&line);
                for (tier, why) in &chosen.tried {
                    text.extend(["weir: not by ", &tier.to_string(), ": ", why, "\n"]);
                }
                for missing in &chosen.without {
                    text.extend(["weir: without ", missing, "\n"]);
                }
                if !self.tells_calls {
                    text.push_str("weir: connections alone; --payload headers shows calls\n");
                }
                io::stderr().write_all(text.as_bytes()).ok();
            }
            Progress::Going { counts, sockets } => {
                if !self.is_refreshed || Instant::now() < self.next {
                    return;
                }
                self.next = Instant::now() + REFRESH;
                self.has_shown = true;
                let line = format!(
                    "\r\x1b[Ktapping: {} sockets, {} calls, {} bytes",
                    Grouped(sockets as u64),
                    Grouped(counts.all_calls()),
                    Grouped(counts.given)
                );
                self.is_refreshed = io::stderr().write_all(line.as_bytes()).is_ok();
            }
        }
    }

    /// Removes the line.
    fn clear(&mut self) {
        if std::mem::take(&mut self.has_shown) {
            io::stderr().write_all(b"\r\x1b[K").ok();
        }
    }
}
