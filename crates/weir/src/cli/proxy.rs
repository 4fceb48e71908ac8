//! `weir proxy …`: its commands, their arguments and their help.

mod examples;
mod rule;

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
    },
    units::parse_duration,
};
use weir_api::proxy::DEFAULT_SOCKET;
use weir_datapath::redirect::{LocalMode, Place};

pub(super) use self::examples::PROXY_EXAMPLES;
use self::examples::{
    APPLY_EXAMPLES, BACKEND_EXAMPLES, CONNS_EXAMPLES, DOCTOR_EXAMPLES, LS_EXAMPLES, RULE_EXAMPLES,
    RUN_EXAMPLES, STATS_EXAMPLES, TEARDOWN_EXAMPLES, TRACE_EXAMPLES,
};
pub(crate) use self::rule::{AddArgs, BackendArgs, BackendCommand, OneBackendArgs, RuleArgs, RuleCommand};

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
