//! The tasks: one for each watch, and the one that keeps the index and publishes it.
//!
//! The index belongs to one task. After each portion of news it publishes a snapshot, which costs a few hundred
//! reference counts; whoever looks up takes the newest one without waiting for anybody.

use std::{
    collections::BTreeMap,
    env,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use kube::Client;
use serde::Serialize;
use tokio::{
    sync::{mpsc, watch as cell},
    task::JoinSet,
    time,
};
use weir_flow::Wall;

use super::{
    cluster::{Change, Cluster, Resource},
    config::{KubernetesConfig, Metadata},
    connect::{self, ConnectError},
    names::Names,
    watch::{self, News, Watch},
};

/// News that may wait for the index. A watch that is faster waits.
pub(super) const QUEUE: usize = 1024;

/// While there is more to take in, snapshots are published this often only.
const PUBLISH: Duration = Duration::from_millis(100);

/// How often what has ended is looked through.
const SWEEP: Duration = Duration::from_secs(30);

/// Names from a cluster, kept up to date in the background until this is dropped.
#[derive(Debug)]
pub struct Kubernetes {
    names: Arc<ArcSwap<Names>>,
    status: cell::Receiver<Status>,
    /// Dropping it ends the tasks.
    _tasks: JoinSet<()>,
}

/// What is known of the cluster, and how well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Why there are no names from a cluster, if there are none.
    pub off: Option<&'static str>,
    /// The lists, by the name of the resource.
    pub resources: BTreeMap<&'static str, ResourceStatus>,
    /// Pods that there are.
    pub pods: usize,
    /// Addresses of pods, nodes and services, those of the last minutes included.
    pub addresses: usize,
}

/// How well one kind of objects is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResourceStatus {
    /// What the list is good for.
    pub state: ResourceState,
    /// Nanoseconds since 1970 when the API server was last heard of about it; 0 if never.
    pub heard_ns: u64,
    /// What was wrong last, if it still is.
    pub trouble: Option<String>,
    /// Times that the whole list was read.
    pub lists: u64,
    /// Objects taken in, from lists and watches.
    pub changes: u64,
}

/// What a list is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceState {
    /// It is not complete for the first time.
    #[default]
    Syncing,
    /// It is complete, and changes are heard of.
    Current,
    /// It was complete, but the API server is not heard of.
    Stale,
    /// The API server refuses it: the role does not grant it.
    Refused,
}

impl Kubernetes {
    /// Connects as configured and begins to watch. That there is no cluster is not an error; [`Self::status`] says it.
    ///
    /// Must be called within a tokio runtime.
    pub async fn start(config: &KubernetesConfig) -> Result<Self, ConnectError> {
        let mut filter = config.filter.clone();
        match connect::client(config).await? {
            Err(reason) => {
                let (_, status) = cell::channel(Status { off: Some(reason), ..Status::default() });
                Ok(Self { names: Arc::default(), status, _tasks: JoinSet::new() })
            }
            Ok(client) => {
                if let Some(variable) = &filter.node_from_env_var {
                    let node = env::var_os(variable).and_then(|node| node.into_string().ok());
                    filter.node = Some(node.ok_or_else(|| ConnectError::NoNode(variable.clone()))?);
                }
                let config = KubernetesConfig { filter, ..config.clone() };
                Ok(Self::with_client(&client, &config))
            }
        }
    }

    fn with_client(client: &Client, config: &KubernetesConfig) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        let mut status = Status::default();
        for watch in watches(config) {
            status.resources.insert(watch.resource.as_str(), ResourceStatus::default());
            tasks.spawn(watch::follow(client.clone(), watch, sender.clone()));
        }
        let cluster = Cluster::new(&config.extract);
        let names = Arc::new(ArcSwap::from_pointee(cluster.names()));
        let (told, receiver_of_status) = cell::channel(status.clone());
        let feed = Feed { cluster, names: Arc::clone(&names), status, told };
        tasks.spawn(feed.run(receiver));
        Self { names, status: receiver_of_status, _tasks: tasks }
    }

    /// Whether there is a cluster to ask.
    pub fn is_on(&self) -> bool {
        self.status.borrow().off.is_none()
    }

    /// Where the newest names are. It stays valid after this is dropped; the names are then those of that time.
    pub fn names(&self) -> Arc<ArcSwap<Names>> {
        Arc::clone(&self.names)
    }

    /// What is known of the cluster now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits until the status is such that `is_enough` holds of it; `false` if that cannot happen any more.
    pub async fn wait_for(&self, is_enough: impl FnMut(&Status) -> bool) -> bool {
        self.status.clone().wait_for(is_enough).await.is_ok()
    }
}

impl Status {
    /// Whether every list that is not refused is complete and up to date.
    pub fn is_current(&self) -> bool {
        let is_good = |state| matches!(state, ResourceState::Current | ResourceState::Refused);
        self.off.is_none() && self.resources.values().all(|resource| is_good(resource.state))
    }
}

/// What is listed and watched with this configuration.
fn watches(config: &KubernetesConfig) -> Vec<Watch> {
    let wants = |metadata| config.extract.wants(metadata);
    let namespace = config.filter.namespace.as_ref().map(|namespace| format!("/namespaces/{namespace}"));
    let path = |group: &str, resource: Resource| {
        let namespace = if resource == Resource::Nodes { None } else { namespace.as_deref() };
        format!("{group}{}/{}", namespace.unwrap_or_default(), resource.as_str())
    };
    let watch = |group: &str, resource| Watch { resource, path: path(group, resource), field_selector: None };

    // Owners first, so that they are known when the pods come.
    let mut watches = Vec::new();
    if wants(Metadata::DeploymentName) && !config.extract.deployment_name_from_replicaset {
        watches.push(watch("/apis/apps/v1", Resource::ReplicaSets));
    }
    if wants(Metadata::CronjobName) {
        watches.push(watch("/apis/batch/v1", Resource::Jobs));
    }
    if wants(Metadata::NodeName) {
        watches.push(watch("/api/v1", Resource::Nodes));
    }
    if wants(Metadata::ServiceName) {
        watches.push(watch("/api/v1", Resource::Services));
        watches.push(watch("/apis/discovery.k8s.io/v1", Resource::EndpointSlices));
    }
    // Pods that are over are most of all pods in some clusters. One that gets over is told as deleted.
    let mut selector = "status.phase!=Succeeded,status.phase!=Failed".to_owned();
    if let Some(node) = &config.filter.node {
        selector = format!("{selector},spec.nodeName={node}");
    }
    watches.push(Watch { field_selector: Some(selector), ..watch("/api/v1", Resource::Pods) });
    watches
}

/// The task that keeps the index.
struct Feed {
    cluster: Cluster,
    names: Arc<ArcSwap<Names>>,
    status: Status,
    told: cell::Sender<Status>,
}

impl Feed {
    async fn run(mut self, mut receiver: mpsc::Receiver<News>) {
        let mut portion = Vec::with_capacity(QUEUE);
        let mut sweep = time::interval(SWEEP);
        sweep.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut published = time::Instant::now();
        loop {
            tokio::select! {
                count = receiver.recv_many(&mut portion, QUEUE) => {
                    if count == 0 {
                        return;
                    }
                    let now = wall();
                    for news in portion.drain(..) {
                        self.take_in(news, now);
                    }
                }
                _ = sweep.tick() => self.cluster.sweep(wall()),
            }
            if receiver.is_empty() || published.elapsed() > PUBLISH {
                self.publish();
                published = time::Instant::now();
            }
        }
    }

    fn take_in(&mut self, news: News, now: Wall) {
        note(&mut self.status, &news, now);
        if let News::Change(change) = news {
            self.cluster.apply(change, now);
        }
    }

    /// The names first: whoever waits for a status finds the names that belong to it.
    fn publish(&mut self) {
        let names = self.cluster.names();
        (self.status.pods, self.status.addresses) = (self.cluster.pods(), names.addresses());
        self.names.store(Arc::new(names));
        self.told.send_replace(self.status.clone());
    }
}

/// What the news mean for the status.
pub(super) fn note(status: &mut Status, news: &News, now: Wall) {
    let resource = match news {
        News::Trouble(resource, _) => resource,
        News::Change(change) => match change {
            Change::Listing(resource)
            | Change::Applied(resource, _)
            | Change::Deleted(resource, _)
            | Change::Listed(resource)
            | Change::Heard(resource)
            | Change::Lost(resource)
            | Change::Refused(resource) => resource,
        },
    };
    let status = status.resources.entry(resource.as_str()).or_default();
    match news {
        News::Trouble(_, trouble) => status.trouble = Some(trouble.clone()),
        News::Change(Change::Lost(_)) => {
            if status.state == ResourceState::Current {
                status.state = ResourceState::Stale;
            }
        }
        News::Change(Change::Refused(_)) => status.state = ResourceState::Refused,
        News::Change(change) => {
            status.heard_ns = now.0;
            match change {
                Change::Applied(..) | Change::Deleted(..) => status.changes += 1,
                Change::Listed(_) => {
                    (status.state, status.trouble) = (ResourceState::Current, None);
                    status.lists += 1;
                }
                Change::Heard(_) => (status.state, status.trouble) = (ResourceState::Current, None),
                _ => {}
            }
        }
    }
}

pub(super) fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::config::{AuthType, Extract, Filter};

    fn paths(config: &KubernetesConfig) -> Vec<String> {
        watches(config).into_iter().map(|watch| watch.path).collect()
    }

    #[test]
    fn only_what_is_wanted_is_asked_for() {
        assert_eq!(watches(&KubernetesConfig::default()).len(), 6);
        let little = KubernetesConfig {
            filter: Filter {
                namespace: Some("shop".into()),
                node: Some("node-1".into()),
                ..Filter::default()
            },
            extract: Extract { metadata: Some(vec![Metadata::NodeName]), ..Extract::default() },
            ..KubernetesConfig::default()
        };
        assert_eq!(paths(&little), ["/api/v1/nodes", "/api/v1/namespaces/shop/pods"]);
        let selector = watches(&little).pop().and_then(|watch| watch.field_selector);
        assert!(selector.is_some_and(|selector| selector.ends_with(",spec.nodeName=node-1")));
    }

    #[tokio::test]
    async fn switched_off_is_a_status_and_not_an_error() {
        let config = KubernetesConfig { auth_type: AuthType::None, ..KubernetesConfig::default() };
        let kubernetes = Kubernetes::start(&config).await.unwrap();
        assert!(!kubernetes.is_on());
        assert_eq!(kubernetes.status().off, Some("switched off by kubernetes.auth_type"));
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_an_error() {
        let config =
            KubernetesConfig { kubeconfig: Some("/nonexistent".into()), ..KubernetesConfig::default() };
        let error = Kubernetes::start(&config).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot use the kubeconfig /nonexistent");
    }
}
