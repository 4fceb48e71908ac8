//! Follows the endpoints of chosen services of one namespace for as long as somebody wants them.

use std::{collections::BTreeMap, path::PathBuf};

use kube::Client;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch as cell},
    task::JoinSet,
};

use super::{Endpoint, Index, Nowhere, Protocol, ServicePort};
use crate::{
    causes::with_causes,
    kubernetes::{
        cluster::Resource,
        config::KubernetesConfig,
        connect,
        feed::{QUEUE, ResourceState, Status, note, wall},
        watch::{self, News, Watch},
    },
};

/// The way to an API server.
#[derive(Clone)]
pub struct Api(Client);

/// Why there is no way to an API server.
#[derive(Debug, thiserror::Error)]
#[error(
    "backends of a service need the API server of a cluster: {0}; name a kubeconfig with --kubeconfig, or run in a pod with a service account"
)]
pub struct NoApi(String);

/// What is wanted: ports of services of the namespace.
type Wanted = Vec<(ServicePort, Protocol)>;

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Where the ports lead; those that nothing was heard of yet are left out.
    pub ports: BTreeMap<(ServicePort, Protocol), Result<Vec<Endpoint>, Nowhere>>,
    /// Why that may be old, or nothing was heard yet.
    pub trouble: Option<String>,
}

/// The tasks of one namespace; they end with it.
#[derive(Debug)]
pub struct EndpointsFeed {
    wanted: cell::Sender<Wanted>,
    _tasks: JoinSet<()>,
}

impl Api {
    /// By this kubeconfig; without one by the service account, `$KUBECONFIG`, `~/.kube/config`. Nobody is asked anything yet.
    pub fn connect(runtime: &Handle, kubeconfig: Option<PathBuf>) -> Result<Self, NoApi> {
        let config = KubernetesConfig { kubeconfig, ..KubernetesConfig::default() };
        match runtime.block_on(connect::client(&config)) {
            Ok(Ok(client)) => Ok(Self(client)),
            Ok(Err(reason)) => Err(NoApi(reason.to_owned())),
            Err(error) => Err(NoApi(with_causes(&error))),
        }
    }
}

impl EndpointsFeed {
    /// Begins to follow. What is told last is what counts; whoever does not take it holds up this namespace only.
    pub fn start(
        runtime: &Handle,
        api: &Api,
        namespace: &str,
        wanted: Wanted,
    ) -> (Self, mpsc::Receiver<Told>) {
        let (news, heard) = mpsc::channel(QUEUE);
        let (tell, told) = mpsc::channel(1);
        let (wanted, wanted_now) = cell::channel(wanted);
        let mut tasks = JoinSet::new();
        let mut status = Status::default();
        for (group, resource) in
            [("/api/v1", Resource::Services), ("/apis/discovery.k8s.io/v1", Resource::EndpointSlices)]
        {
            status.resources.entry(resource.as_str()).or_default();
            let path = format!("{group}/namespaces/{namespace}/{}", resource.as_str());
            let watch = Watch { resource, path, field_selector: None };
            tasks.spawn_on(watch::follow(api.0.clone(), watch, news.clone()), runtime);
        }
        let feed = Feed { index: Index::default(), status, last: None };
        tasks.spawn_on(feed.run(heard, wanted_now, tell), runtime);
        (Self { wanted, _tasks: tasks }, told)
    }

    /// From now on this is wanted.
    pub fn want(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|now| {
            let is_new = *now != wanted;
            *now = wanted;
            is_new
        });
    }
}

struct Feed {
    index: Index,
    status: Status,
    last: Option<Told>,
}

impl Feed {
    async fn run(
        mut self,
        mut heard: mpsc::Receiver<News>,
        mut wanted: cell::Receiver<Wanted>,
        tell: mpsc::Sender<Told>,
    ) {
        let mut portion = Vec::with_capacity(QUEUE);
        loop {
            tokio::select! {
                count = heard.recv_many(&mut portion, QUEUE) => {
                    if count == 0 {
                        return;
                    }
                    let now = wall();
                    for news in portion.drain(..) {
                        note(&mut self.status, &news, now);
                        if let News::Change(change) = &news {
                            self.index.apply(change);
                        }
                    }
                }
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // Whoever wants something new wants to hear of it, even if it is the same.
                    self.last = None;
                }
            }
            if !heard.is_empty() {
                continue;
            }
            let now = self.now(&wanted.borrow_and_update());
            if self.last.as_ref() != Some(&now) {
                self.last = Some(now.clone());
                if tell.send(now).await.is_err() {
                    return;
                }
            }
        }
    }

    fn now(&self, wanted: &Wanted) -> Told {
        let ports = wanted.iter().filter_map(|(port, protocol)| {
            Some(((port.clone(), *protocol), self.index.endpoints(port, *protocol)?))
        });
        Told { ports: ports.collect(), trouble: trouble(&self.status) }
    }
}

/// What keeps the news away.
fn trouble(status: &Status) -> Option<String> {
    status.resources.iter().find_map(|(resource, status)| {
        let trouble = status.trouble.as_deref();
        let silent = |text: &str| format!("the API server is not heard of: {text}");
        match status.state {
            ResourceState::Current => None,
            ResourceState::Syncing if status.heard_ns == 0 => {
                Some(silent(trouble.unwrap_or("no answer yet")))
            }
            ResourceState::Syncing | ResourceState::Stale => trouble.map(silent),
            ResourceState::Refused => {
                let text = trouble.unwrap_or("forbidden");
                Some(format!("the API server refuses {resource} ({text}): grant list and watch"))
            }
        }
    })
}
