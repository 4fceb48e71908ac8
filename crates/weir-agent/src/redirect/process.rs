//! The control process: starts everything, owns the proxy, ends.
//!
//! The calling thread is the owner. It does what others ask for, one thing after the other, and once a second looks after
//! the connections. When it ends, the kernel goes on with what was published last.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use signal_hook::{consts::SIGHUP, iterator::Signals};
use thiserror::Error;
use tokio::{sync::mpsc::Receiver, time::timeout};
use weir_datapath::redirect::{Desired, LocalMode, Place, Redirect, RedirectError, Settings, Start};

use super::{
    Source, Sources,
    checks::Checks,
    engine::{Engine, in_effect, recovered},
    follow,
    owner::{Owner, Work},
    proxy::{ChangeError, Parts, Proxy, merged},
    resolve::Services,
    routes,
    rules::{RuleSet, Rules, judge_set},
    state::{Sockets, State, StateError},
    watching::Watching,
};
use crate::{
    causes::with_causes,
    config::Problems,
    journal,
    kubernetes::endpoints::NoApi,
    server::{Guard, Refusals, ServeError, Server, ServerConfig, Tokens, Transport, guard_requests},
    signals,
};

/// Time between two looks at the connections.
const TICK: Duration = Duration::from_secs(1);

/// Most things done before what they changed is published.
const AT_ONCE: usize = 512;

/// Connections to the control socket and to the metrics at a time.
const CLIENTS: usize = 64;

/// Where maps and programs are pinned if nothing else is said.
pub const DEFAULT_ROOT: &str = "/sys/fs/bpf/weir/proxy";

/// Where the state is if nothing else is said.
pub const DEFAULT_STATE: &str = "/run/weir/proxy/state.json";

/// What a control process should do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The rules file.
    pub file: Option<PathBuf>,
    /// Interfaces besides those of the file.
    pub places: Vec<Place>,
    /// Where maps and programs are pinned.
    pub root: PathBuf,
    /// What becomes of sockets of this machine; `None` is as before.
    pub local: Option<LocalMode>,
    /// The cgroup whose processes these are of; `None` is as before, at first the topmost one.
    pub cgroup: Option<PathBuf>,
    /// The file that says where the API server of Kubernetes is; `None` is as before.
    pub kubeconfig: Option<PathBuf>,
    /// The control socket.
    pub socket: PathBuf,
    /// The state.
    pub state: PathBuf,
    /// Where to answer `/metrics` besides.
    pub metrics: Option<SocketAddr>,
}

/// Why the control process cannot start.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// The rules file cannot be read.
    #[error("{0}")]
    File(String),
    /// The rules are wrong.
    #[error("the rules are wrong:\n{0}")]
    Rules(Problems),
    /// Nothing to look at.
    #[error("no interface: name one with -i, or with `interfaces` in the rules file")]
    NoInterface,
    /// The state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A directory cannot be made.
    #[error("cannot create {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The control socket or the address of the metrics cannot be bound.
    #[error("{}", serve_text(.0))]
    Serve(#[source] Box<ServeError>),
    /// The datapath cannot be loaded.
    #[error("cannot load the datapath")]
    Datapath(#[source] Box<RedirectError>),
    /// What is wanted cannot be had.
    #[error(transparent)]
    Change(#[from] Box<ChangeError>),
    /// Rules name services, and there is no way to an API server.
    #[error(transparent)]
    NoApi(#[from] NoApi),
    /// A thread cannot be started.
    #[error("cannot start a thread of the control process")]
    Thread(#[source] io::Error),
}

fn serve_text(error: &ServeError) -> String {
    match error {
        ServeError::BindUnix { path, source } if source.kind() == io::ErrorKind::AddrInUse => {
            format!(
                "a control process answers at {} already: `weir proxy ls` shows what it does",
                path.display()
            )
        }
        _ => "cannot serve".to_owned(),
    }
}

fn datapath_error(error: RedirectError) -> ProxyError {
    ProxyError::Datapath(Box::new(error))
}

impl ProxyError {
    /// Whether it is the user who has to put something right.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::File(_) | Self::Rules(_) | Self::NoInterface => true,
            Self::Change(error) => error.is_usage(),
            _ => false,
        }
    }
}

/// Runs until a signal or a request asks for the end. `ready` is called once everything is in effect.
pub fn run(options: &Options, ready: impl FnOnce()) -> Result<(), ProxyError> {
    let text =
        options.file.as_deref().map(|path| follow::read(path).map_err(ProxyError::File)).transpose()?;
    let file = text.as_deref().map(|text| Rules::read(text).map_err(ProxyError::Rules)).transpose()?;
    let state = State::read(&options.state)?;
    let places = places(options, file.as_ref(), state.as_ref())?;
    for path in [&options.socket, &options.state] {
        make_directory(path)?;
    }
    let metrics = options.metrics.or(file.as_ref().and_then(|file| file.metrics));
    // Before anything is changed: whoever finds another control process leaves everything alone.
    let mut server = bind(&options.socket, metrics)?;
    let (owner, requests) = Owner::new();
    let runtime = server.runtime().handle().clone();
    let kubeconfig = options.kubeconfig.as_ref().map(absolute);
    let kubeconfig = kubeconfig.or_else(|| state.as_ref().and_then(|state| state.kubeconfig.clone()));
    let mut watching = Watching::new(runtime.clone(), owner.clone(), kubeconfig);
    if name_services(file.as_ref(), state.as_ref()) {
        watching.connect()?;
    }
    let sockets = sockets(options, state.as_ref());
    let (datapath, start, published) = open(options, &sockets, file.as_ref())?;
    let Begun { engine, written, services, sources } = begin(&published, file, state)?;

    let mut proxy = Proxy::new(Parts {
        datapath,
        engine,
        written,
        services,
        sources,
        sockets,
        state_path: options.state.clone(),
        file: options.file.clone(),
        checks: Checks::new(runtime, owner.clone()),
        watching,
    });
    if let Err(error) = proxy.begin(places) {
        drop(proxy);
        if start == Start::Fresh {
            undo(&options.root);
        }
        server.stop();
        return Err(Box::new(error).into());
    }
    serve(&mut server, &owner)?;
    listen(options, text, &owner)?;
    journal::info(format_args!("{} rules in effect", proxy.engine.rules().len()));
    ready();
    own(&mut proxy, requests, &server);
    journal::info("ending; connections go on, and rules stay in effect (`weir proxy teardown` removes them)");
    drop(proxy);
    server.stop();
    Ok(())
}

/// Those of the command line, then those of the file; without any, those of before.
fn places(
    options: &Options,
    file: Option<&Rules>,
    state: Option<&State>,
) -> Result<Vec<(Place, Source)>, ProxyError> {
    let mut places: Vec<(Place, Source)> =
        options.places.iter().map(|place| (place.clone(), Source::Command)).collect();
    for place in file.iter().flat_map(|file| &file.places) {
        if !places.iter().any(|(other, _)| other.interface == place.interface) {
            places.push((place.clone(), Source::File));
        }
    }
    if places.is_empty() {
        places = state.map(|state| state.places.clone()).unwrap_or_default();
    }
    if places.is_empty() { Err(ProxyError::NoInterface) } else { Ok(places) }
}

/// What becomes of sockets: what the command line says, else what was before.
fn sockets(options: &Options, state: Option<&State>) -> Sockets {
    let before = state.map(|state| state.sockets.clone()).unwrap_or_default();
    let named = options.cgroup.as_ref().map(absolute);
    // Whoever names a cgroup means it to be used.
    let local = options.local.or_else(|| named.is_some().then_some(LocalMode::Cgroup));
    Sockets { local: local.unwrap_or(before.local), cgroup: named.or(before.cgroup) }
}

/// The next start may be in another directory.
fn absolute(path: &PathBuf) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.clone())
}

/// Whether any rule that will be in effect names a service.
fn name_services(file: Option<&Rules>, state: Option<&State>) -> bool {
    let stays = |name: &Arc<str>, state: &State| {
        file.is_none() || state.sources.get(name).copied().unwrap_or(Source::Command) == Source::Command
    };
    let of_state =
        state.into_iter().flat_map(|state| state.rules.values().filter(|rule| stays(&rule.name, state)));
    file.iter().flat_map(|file| file.rules.values()).chain(of_state).any(|rule| !rule.services.is_empty())
}

fn make_directory(file: &Path) -> Result<(), ProxyError> {
    let Some(path) = file.parent().filter(|path| !path.as_os_str().is_empty()) else { return Ok(()) };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| ProxyError::Directory { path: path.to_owned(), source })
}

/// Takes the control socket, and the address of the metrics.
fn bind(socket: &Path, metrics: Option<SocketAddr>) -> Result<Server, ProxyError> {
    let config = ServerConfig {
        listen: metrics.into_iter().collect(),
        unix_socket: Some(socket.to_owned()),
        // Whoever may write to it may divert traffic.
        unix_mode: 0o600,
        token: None,
        tls: None,
        names: Vec::new(),
        connections: CLIENTS,
    };
    Server::bind(&config).map_err(|error| ProxyError::Serve(Box::new(error)))
}

/// Nothing diverts that no process answers for: what a start that failed has made is removed again.
fn undo(root: &Path) {
    if let Err(error) = Redirect::teardown(root, false) {
        let error = with_causes(&error);
        journal::error(format_args!(
            "something was left behind, remove it by `weir proxy teardown`: {error}"
        ));
    }
}

fn open(
    options: &Options,
    sockets: &Sockets,
    file: Option<&Rules>,
) -> Result<(Redirect, Start, Desired), ProxyError> {
    let settings = Settings {
        root: options.root.clone(),
        capacity: file.and_then(|file| file.capacity),
        local: sockets.local,
        cgroup: sockets.cgroup.clone(),
    };
    let (datapath, start) = Redirect::open(&settings).map_err(datapath_error)?;
    let capacity = settings.capacity.unwrap_or(Settings::CAPACITY);
    match start {
        Start::TookOver { connections, resized_from: Some(before) } => journal::info(format_args!(
            "took over {connections} connections into a table of {capacity}, which was one of {before}"
        )),
        Start::TookOver { connections, .. } => {
            journal::info(format_args!("took over {connections} connections"));
        }
        Start::Fresh => journal::info(format_args!("loaded, with room for {capacity} connections")),
    }
    let published = datapath.published().map_err(datapath_error)?;
    Ok((datapath, start, published))
}

/// The wanted state at the start.
struct Begun {
    engine: Engine,
    written: RuleSet,
    services: Services,
    sources: Sources,
}

/// The rules of the file and those of commands; without both, what the kernel has.
fn begin(published: &Desired, file: Option<Rules>, state: Option<State>) -> Result<Begun, ProxyError> {
    let State { rules, sources, orders, services, .. } = state.unwrap_or_else(|| {
        let rules = recovered(published);
        if !rules.is_empty() && file.is_none() {
            journal::warn("the names of rules are lost, and with them their checks: see `weir proxy ls`");
        }
        State { rules: if file.is_none() { rules } else { RuleSet::new() }, ..State::default() }
    });
    let (written, sources) = match file {
        Some(file) => merged(&rules, &sources, &file.rules),
        None => (rules, sources),
    };
    judge_set(&written).map_err(ProxyError::Rules)?;
    let services = Services::new(services);
    let rules = services.expand_changed(&written, &in_effect(published, &written));
    let engine = Engine::resume(published, rules, orders);
    Ok(Begun { engine, written, services, sources })
}

/// Answers: everything on the socket, the metrics alone on the address.
fn serve(server: &mut Server, owner: &Owner) -> Result<(), ProxyError> {
    let tokens = Arc::new(Tokens::none());
    let (requests, refusals) = (Guard::requests(), Arc::<Refusals>::default());
    let router = |transport| match transport {
        Transport::Unix => routes::routes(owner.clone()),
        Transport::Http | Transport::Https => {
            let guard = Guard {
                tokens: Arc::clone(&tokens),
                names: Arc::from([]),
                transport,
                requests: Arc::clone(&requests),
                refusals: Arc::clone(&refusals),
            };
            let guard = axum::middleware::from_fn_with_state(guard, guard_requests);
            routes::metrics_only(owner.clone()).layer(guard)
        }
    };
    server.serve(router).map_err(ProxyError::Thread)
}

/// Listens for signals, and for changes of the file and of interfaces.
fn listen(options: &Options, text: Option<String>, owner: &Owner) -> Result<(), ProxyError> {
    let mut wait = signals::wait_for_stop().map_err(ProxyError::Thread)?;
    let ending = owner.clone();
    let stop = move || {
        if wait() {
            ending.tell_blocking(Proxy::stop).ok();
        }
    };
    let name = |name: &str| thread::Builder::new().name(name.to_owned());
    name("weir-signals").spawn(stop).map_err(ProxyError::Thread)?;
    if let (Some(path), Some(text)) = (&options.file, text) {
        follow::file(path.clone(), text, owner.clone()).map_err(ProxyError::Thread)?;
        let mut signals = Signals::new([SIGHUP]).map_err(ProxyError::Thread)?;
        let (path, owner) = (path.clone(), owner.clone());
        let again = move || {
            for _ in signals.forever() {
                let text = follow::read(&path);
                if owner.tell_blocking(move |proxy| proxy.reload(text)).is_err() {
                    return;
                }
            }
        };
        name("weir-reload").spawn(again).map_err(ProxyError::Thread)?;
    }
    follow::interfaces(owner.clone()).map_err(ProxyError::Thread)
}

/// Does what is asked for until somebody asks for the end.
fn own(proxy: &mut Proxy, mut requests: Receiver<Work>, server: &Server) {
    let mut next = Instant::now() + TICK;
    while !proxy.is_stopping() {
        let wait = next.saturating_duration_since(Instant::now());
        let first = server.runtime().block_on(async { timeout(wait, requests.recv()).await });
        if let Ok(work) = first {
            let Some(work) = work else { return };
            work(proxy);
            // What waits already is done before anything is published: a hundred checks are one change.
            for work in std::iter::from_fn(|| requests.try_recv().ok()).take(AT_ONCE) {
                work(proxy);
            }
        }
        let now = Instant::now();
        if now >= next {
            proxy.tick(now);
            next = now + TICK;
        }
        proxy.publish_if_needed();
    }
}
