//! `weir proxy …`: its commands, their arguments and their help.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use weir_agent::{
    redirect::{
        process::{DEFAULT_ROOT, DEFAULT_STATE},
        rules::parse_place,
        service::parse_service,
        text::{check_name, parse_backend, parse_backend_address, parse_check, parse_listener, parse_weight},
    },
    units::parse_duration,
};
use weir_api::proxy::DEFAULT_SOCKET;
use weir_datapath::redirect::{LocalMode, Place};

/// `weir proxy`
#[derive(Args, Clone, Debug)]
pub(crate) struct ProxyArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: ProxyCommand,
    /// Where things are
    #[command(flatten)]
    pub(crate) paths: ProxyPaths,
}

/// Where the control process and what it leaves are.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProxyPaths {
    /// Socket of the control process
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, global = true, default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    /// Where maps and programs are pinned, in a BPF file system
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, global = true, default_value = DEFAULT_ROOT)]
    pub(crate) root: PathBuf,
    /// Names and orders, for a restart
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, global = true, default_value = DEFAULT_STATE)]
    pub(crate) state: PathBuf,
}

/// What `weir proxy` can do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ProxyCommand {
    /// Load, attach, and serve the control socket
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Add, remove or drain a rule
    #[command(after_help = RULE_EXAMPLES)]
    Rule(RuleArgs),
    /// Drain backends, or give them another weight
    #[command(after_help = BACKEND_EXAMPLES)]
    Backend(BackendArgs),
    /// Make the rules those of a file, all or nothing
    #[command(after_help = APPLY_EXAMPLES)]
    Apply(ApplyArgs),
    /// Show rules and backends
    #[command(after_help = LS_EXAMPLES)]
    Ls(ShownArgs),
    /// Show connections
    #[command(after_help = CONNS_EXAMPLES)]
    Conns(ConnsArgs),
    /// Show what rules and backends carried
    #[command(after_help = STATS_EXAMPLES)]
    Stats(ShownArgs),
    /// Say why a packet would be diverted, or not
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(TraceArgs),
    /// Say what on this machine could get in the way
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(ProxyDoctorArgs),
    /// Detach and remove everything that weir proxy made, and nothing else
    #[command(after_help = TEARDOWN_EXAMPLES)]
    Teardown(TeardownArgs),
}

/// `weir proxy run`
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// Rules file; it is read again when it changes
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// Look at packets of this interface, as `uplink` (the default) or `client`; may be given several times
    #[arg(short, long = "interface", value_name = "NAME[=ROLE]", value_parser = parse_place)]
    pub(crate) interfaces: Vec<Place>,
    /// How connections of this machine reach backends on this machine [default: as before, at first `cgroup`]
    #[arg(long, value_enum)]
    pub(crate) local: Option<LocalArg>,
    /// With `--local cgroup`: whose processes connect [default: as before, at first the topmost cgroup]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) cgroup: Option<PathBuf>,
    /// Where the API server of Kubernetes is, for backends of a service [default: as before, at first the service account of
    /// the pod, `$KUBECONFIG`, `~/.kube/config`]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Go to the background once everything is in effect
    #[arg(long)]
    pub(crate) detach: bool,
    /// With `--detach`: where messages go
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, default_value = "/run/weir/proxy/log")]
    pub(crate) log: PathBuf,
    /// Answer `/metrics` at this address as well
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
    /// This is the process in the background
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub(crate) detached: bool,
}

/// How connections of this machine reach backends on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LocalArg {
    /// Their sockets are led there as they connect, by programs of a cgroup
    Cgroup,
    /// Not at all
    Off,
}

impl From<LocalArg> for LocalMode {
    fn from(local: LocalArg) -> Self {
        match local {
            LocalArg::Cgroup => Self::Cgroup,
            LocalArg::Off => Self::Off,
        }
    }
}

/// `weir proxy rule`
#[derive(Args, Clone, Debug)]
pub(crate) struct RuleArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: RuleCommand,
}

/// What can be done with a rule.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RuleCommand {
    /// Add a rule, or replace the one of that name
    #[command(after_help = ADD_EXAMPLES)]
    Add(Box<AddArgs>),
    /// Remove a rule; its connections go on for its drain time
    #[command(after_help = RM_EXAMPLES)]
    Rm(RmArgs),
    /// Let a rule take no new connections; those that it has go on
    #[command(after_help = RULE_DRAIN_EXAMPLES)]
    Drain(NameArgs),
    /// Let a drained rule take new connections again
    #[command(after_help = RULE_DRAIN_EXAMPLES)]
    Undrain(NameArgs),
}

/// `weir proxy rule add`
#[derive(Args, Clone, Debug)]
pub(crate) struct AddArgs {
    /// Its name
    #[arg(value_name = "NAME", value_parser = name)]
    pub(crate) name: String,
    /// What clients call, such as `tcp:10.0.0.10:80-90`; may be given several times
    #[arg(long, value_name = "LISTENER", required = true, value_parser = listener)]
    pub(crate) listen: Vec<String>,
    /// Who answers, such as `10.0.0.138:8080,weight=3`, or `service:NAMESPACE/NAME:PORT` for the endpoints of a service of
    /// Kubernetes; may be given several times
    #[arg(long = "backend", value_name = "ADDRESS[:PORT][,weight=N]", required = true, value_parser = backend)]
    pub(crate) backends: Vec<String>,
    /// How backends are checked: `tcp`, `http:/PATH`, `udp:HEX` or `none`
    #[arg(long, value_name = "CHECK", value_parser = check)]
    pub(crate) health: Option<String>,
    /// Port of the checks, if it is not that of the backend
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) health_port: Option<u16>,
    /// Time from one check of a backend to the next [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub(crate) health_interval: Option<String>,
    /// How long a check may take [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub(crate) health_timeout: Option<String>,
    /// Checks in a row that must succeed until a backend counts as up [default: 2]
    #[arg(long, value_name = "N")]
    pub(crate) rise: Option<u32>,
    /// Checks in a row that must fail until a backend counts as down [default: 3]
    #[arg(long, value_name = "N")]
    pub(crate) fall: Option<u32>,
    /// How long a client keeps its backend after its last connection began
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub(crate) affinity: Option<String>,
    /// What becomes of a new connection if no backend may take it [default: rst]
    #[arg(long, value_enum)]
    pub(crate) on_empty: Option<OnEmptyArg>,
    /// What becomes of a new connection if the table is full [default: drop]
    #[arg(long, value_enum)]
    pub(crate) on_full: Option<OnFullArg>,
    /// What becomes of the client's port on the way to the backend [default: on-collision]
    #[arg(long, value_enum)]
    pub(crate) port_policy: Option<PortPolicyArg>,
    /// How long connections that say nothing are remembered, such as `established=2h`; keys: syn, established, closing, udp, udp_unreplied
    #[expect(clippy::doc_markdown, reason = "this text is shown in the terminal")]
    #[arg(long = "timeout", value_name = "KEY=TIME", value_parser = timeout)]
    pub(crate) timeouts: Vec<(String, String)>,
    /// Most new connections a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) new_per_second: Option<u32>,
    /// How long TCP connections may go on after their backend was removed [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub(crate) drain_timeout: Option<String>,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What becomes of a new connection that no backend may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnEmptyArg {
    /// Refused; UDP is dropped
    Rst,
    /// Dropped
    Drop,
    /// Goes to the address that the client called
    Pass,
}

/// What becomes of a new connection for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFullArg {
    /// Dropped
    Drop,
    /// Goes to the address that the client called
    Pass,
}

/// What becomes of the client's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PortPolicyArg {
    /// It stays; what could not be told apart is dropped
    Preserve,
    /// Another one, if two connections could not be told apart
    OnCollision,
    /// Another one
    Always,
}

/// `weir proxy rule rm`
#[derive(Args, Clone, Debug)]
pub(crate) struct RmArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// End its connections at once; this ends those of everything else that was removed, too
    #[arg(long)]
    pub(crate) now: bool,
}

/// A rule by its name.
#[derive(Args, Clone, Debug)]
pub(crate) struct NameArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// `weir proxy backend`
#[derive(Args, Clone, Debug)]
pub(crate) struct BackendArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: BackendCommand,
}

/// What can be done with a backend.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BackendCommand {
    /// Let a backend take no new connections; those that it has go on
    #[command(after_help = BACKEND_EXAMPLES)]
    Drain(OneBackendArgs),
    /// Let a drained backend take new connections again
    #[command(after_help = BACKEND_EXAMPLES)]
    Undrain(OneBackendArgs),
    /// Give a backend another weight, until the file gives it another one
    #[command(after_help = BACKEND_EXAMPLES)]
    Weight(WeightArgs),
}

/// A backend of a rule.
#[derive(Args, Clone, Debug)]
pub(crate) struct OneBackendArgs {
    /// Name of the rule
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The backend, as `weir proxy ls` shows it
    #[arg(value_name = "ADDRESS[:PORT]", value_parser = address)]
    pub(crate) address: String,
}

/// `weir proxy backend weight`
#[derive(Args, Clone, Debug)]
pub(crate) struct WeightArgs {
    /// Which backend
    #[command(flatten)]
    pub(crate) backend: OneBackendArgs,
    /// Its weight, 0 to 256
    #[arg(value_name = "WEIGHT", value_parser = parse_weight)]
    pub(crate) weight: u16,
}

/// `weir proxy apply`
#[derive(Args, Clone, Debug)]
pub(crate) struct ApplyArgs {
    /// The rules file
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Only say what would change; without a control process, in comparison with what it left
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Show what changes, line by line
    #[arg(long)]
    pub(crate) diff: bool,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = ShownFormat::Table)]
    pub(crate) output: ShownFormat,
}

/// `weir proxy ls` and `weir proxy stats`
#[derive(Args, Clone, Debug)]
pub(crate) struct ShownArgs {
    /// How to show it
    #[command(flatten)]
    pub(crate) show: ShowProxyArgs,
}

/// How something is shown, and how often.
#[derive(Args, Clone, Debug)]
pub(crate) struct ShowProxyArgs {
    /// How to print
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = ShownFormat::Table)]
    pub(crate) output: ShownFormat,
    /// Show it again and again, until Ctrl-C
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// With `--watch`: time from one to the next
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration, requires = "watch")]
    pub(crate) interval: Duration,
}

/// How something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShownFormat {
    /// For people
    Table,
    /// One JSON object on one line
    Json,
}

/// `weir proxy conns`
#[derive(Args, Clone, Debug)]
pub(crate) struct ConnsArgs {
    /// Only those of this rule
    #[arg(long, value_name = "NAME")]
    pub(crate) rule: Option<String>,
    /// Only those of this client
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) client: Option<IpAddr>,
    /// Show so many at most
    #[arg(long, value_name = "N", default_value = "1000")]
    pub(crate) limit: usize,
    /// How to show it
    #[command(flatten)]
    pub(crate) show: ShowProxyArgs,
}

/// `weir proxy trace`
#[derive(Args, Clone, Debug)]
pub(crate) struct TraceArgs {
    /// The connection, such as 'tcp:10.0.0.1:40000->10.0.0.10:12345'; in quotes, for the sake of the shell
    #[arg(value_name = "CONNECTION")]
    pub(crate) connection: String,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = ShownFormat::Table)]
    pub(crate) output: ShownFormat,
}

/// `weir proxy doctor`
#[derive(Args, Clone, Debug)]
pub(crate) struct ProxyDoctorArgs {
    /// Look at this interface; without it, at those that are attached
    #[arg(short, long = "interface", value_name = "NAME[=ROLE]", value_parser = parse_place)]
    pub(crate) interfaces: Vec<Place>,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = ShownFormat::Table)]
    pub(crate) output: ShownFormat,
}

/// `weir proxy teardown`
#[derive(Args, Clone, Debug)]
pub(crate) struct TeardownArgs {
    /// Only list what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Accepts what `parse` accepts and keeps the text, which goes to the control process as it is.
fn accepted<T, E: ToString>(text: &str, parsed: Result<T, E>) -> Result<String, String> {
    parsed.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn name(text: &str) -> Result<String, String> {
    accepted(text, check_name(text))
}

fn listener(text: &str) -> Result<String, String> {
    accepted(text, parse_listener(text))
}

fn backend(text: &str) -> Result<String, String> {
    match parse_service(text) {
        Some(service) => accepted(text, service),
        None => accepted(text, parse_backend(text)),
    }
}

fn address(text: &str) -> Result<String, String> {
    accepted(text, parse_backend_address(text))
}

fn check(text: &str) -> Result<String, String> {
    accepted(text, parse_check(text))
}

fn length(text: &str) -> Result<String, String> {
    accepted(text, parse_duration(text))
}

fn timeout(text: &str) -> Result<(String, String), String> {
    const KEYS: [&str; 5] = ["syn", "established", "closing", "udp", "udp_unreplied"];
    let (key, time) = text.split_once('=').ok_or("write KEY=TIME, such as established=2h")?;
    if !KEYS.contains(&key) {
        return Err(format!("unknown key `{key}`: use one of {}", KEYS.join(", ")));
    }
    Ok((key.to_owned(), length(time)?))
}

pub(super) const PROXY_EXAMPLES: &str = "\
Examples:
  weir proxy run -i eth0 --detach
  weir proxy rule add web --listen tcp:10.0.0.10:12345 --backend 10.0.0.138:23456
  weir proxy ls --watch
  weir proxy trace 'tcp:10.0.0.1:40000->10.0.0.10:12345'
  weir proxy teardown

Diverts connections by rewriting packets; nobody has to be told, and no connection passes through a
process. What the kernel was told it keeps: connections go on without the control process.";

const RUN_EXAMPLES: &str = "\
Examples:
  weir proxy run -i eth0
  weir proxy run -i eth0 -i veth0=client -f /etc/weir/rules.yaml --detach
  weir proxy run --detach                                after a restart: rules and interfaces of before

Roles: with `uplink`, connections of this machine are diverted as they leave by the interface; with
`client`, those of others as they come in by it. SIGINT and SIGTERM end the control process and leave
everything in effect; checks, the forgetting of connections and changes of rules then wait for the
next one. Needs CAP_NET_ADMIN and CAP_BPF, usually root.";

const ADD_EXAMPLES: &str = "\
Examples:
  weir proxy rule add web --listen tcp:10.0.0.10:12345 --backend 10.0.0.138:23456
  weir proxy rule add shop --listen tcp:10.0.0.20:443 --backend 10.1.0.1:8443,weight=3 --backend 10.1.0.2:8443 --health tcp
  weir proxy rule add dns --listen 'udp:[fd00::1]:53' --listen 'tcp:[fd00::1]:53' --backend '[fd00::5]:53'
  weir proxy rule add range --listen tcp:10.0.0.30:8000-8099 --backend 10.1.0.3 --on-empty pass
  weir proxy rule add pods --listen tcp:10.0.0.40:80 --backend service:shop/web:http";

const RULE_EXAMPLES: &str = "\
Examples:
  weir proxy rule add web --listen tcp:10.0.0.10:12345 --backend 10.0.0.138:23456
  weir proxy rule drain web
  weir proxy rule rm web";

const RM_EXAMPLES: &str = "\
Examples:
  weir proxy rule rm web
  weir proxy rule rm web --now";

const RULE_DRAIN_EXAMPLES: &str = "\
Examples:
  weir proxy rule drain web
  weir proxy rule undrain web";

const BACKEND_EXAMPLES: &str = "\
Examples:
  weir proxy backend drain web 10.0.0.138:23456
  weir proxy backend undrain web 10.0.0.138:23456
  weir proxy backend weight web 10.0.0.138:23456 3";

const APPLY_EXAMPLES: &str = "\
Examples:
  weir proxy apply -f rules.yaml --dry-run --diff
  weir proxy apply -f rules.yaml

Rules that an earlier file brought and this one does not have are removed; rules of `rule add` stay.
All of the file is judged before anything changes. Exit code 2 if anything is wrong with it.";

const LS_EXAMPLES: &str = "\
Examples:
  weir proxy ls
  weir proxy ls -o json
  weir proxy ls --watch

Without a control process, shows what the kernel has, and says so.";

const CONNS_EXAMPLES: &str = "\
Examples:
  weir proxy conns
  weir proxy conns --watch
  weir proxy conns --rule web --client 10.0.0.1 -o json

Without a control process, shows what the kernel has, and says so.";

const STATS_EXAMPLES: &str = "\
Examples:
  weir proxy stats
  weir proxy stats --watch
  weir proxy stats -o json";

const TRACE_EXAMPLES: &str = "\
Examples:
  weir proxy trace 'tcp:10.0.0.1:40000->10.0.0.10:12345'
  weir proxy trace 'udp:[fd00::9]:5353->[fd00::1]:53' -o json";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  weir proxy doctor
  weir proxy doctor -i eth0 -i veth0=client";

const TEARDOWN_EXAMPLES: &str = "\
Examples:
  weir proxy teardown --dry-run
  weir proxy teardown

Ends the control process first, if one runs. Connections that were diverted break.";
