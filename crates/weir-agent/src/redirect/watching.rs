//! [`Watching`]: follows the services that rules name, one feed for each namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use tokio::{runtime::Handle, task::JoinSet};

use super::{owner::Owner, resolve::ServiceKey};
use crate::kubernetes::endpoints::{Api, EndpointsFeed, NoApi};

/// The feeds that run. What they tell goes to the thread that owns the proxy.
pub(super) struct Watching {
    runtime: Handle,
    owner: Owner,
    kubeconfig: Option<PathBuf>,
    api: Option<Api>,
    feeds: BTreeMap<Arc<str>, Followed>,
}

/// A feed, and the task that hands on what it tells. Both end with it.
struct Followed {
    feed: EndpointsFeed,
    _telling: JoinSet<()>,
}

impl Watching {
    /// Nothing is followed yet.
    pub(super) fn new(runtime: Handle, owner: Owner, kubeconfig: Option<PathBuf>) -> Self {
        Self { runtime, owner, kubeconfig, api: None, feeds: BTreeMap::new() }
    }

    /// The file that says where the API server is, if one was named.
    pub(super) fn kubeconfig(&self) -> Option<&PathBuf> {
        self.kubeconfig.as_ref()
    }

    /// Makes sure that there is a way to an API server. Whether it answers is another matter.
    pub(super) fn connect(&mut self) -> Result<(), NoApi> {
        if self.api.is_none() {
            self.api = Some(Api::connect(&self.runtime, self.kubeconfig.clone())?);
        }
        Ok(())
    }

    /// Follows these from now on. Namespaces that are followed already are not disturbed.
    pub(super) fn set(&mut self, wanted: &BTreeSet<ServiceKey>) {
        let mut by_namespace: BTreeMap<Arc<str>, Vec<ServiceKey>> = BTreeMap::new();
        for key in wanted {
            by_namespace.entry(Arc::clone(&key.0.namespace)).or_default().push(key.clone());
        }
        self.feeds.retain(|namespace, _| by_namespace.contains_key(namespace));
        let Some(api) = &self.api else { return };
        for (namespace, wanted) in by_namespace {
            if let Some(followed) = self.feeds.get(&namespace) {
                followed.feed.want(wanted);
                continue;
            }
            let (feed, mut told) = EndpointsFeed::start(&self.runtime, api, &namespace, wanted);
            let (owner, of) = (self.owner.clone(), Arc::clone(&namespace));
            let tell = async move {
                while let Some(told) = told.recv().await {
                    let of = Arc::clone(&of);
                    if owner.tell(move |proxy| proxy.endpoints(&of, told)).await.is_err() {
                        return;
                    }
                }
            };
            let mut telling = JoinSet::new();
            telling.spawn_on(tell, &self.runtime);
            self.feeds.insert(namespace, Followed { feed, _telling: telling });
        }
    }
}
