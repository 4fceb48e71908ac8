//! [`Owners`]: what a pod belongs to in the end.
//!
//! A pod names the replica set or job that controls it; what controls that is in the replica set or job. Where that is
//! not known yet, the pod belongs to the replica set until it is.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{Resource, strings::Strings};
use crate::kubernetes::{
    config::{self, Extract},
    objects::{Metadata, OwnerReference},
};

/// Label of a pod with the part of its replica set's name that the deployment added.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Kind and name.
pub(super) type Owner = (Arc<str>, Arc<str>);

/// Replica sets and jobs, as far as names need them.
#[derive(Debug)]
pub(super) struct Owners {
    known: HashMap<Arc<str>, Known>,
    /// Pods that wait for news of their controller.
    waiting: HashMap<Arc<str>, Vec<Arc<str>>>,
    lists: [u32; 2],
    wants_deployments: bool,
    wants_cronjobs: bool,
    deployment_from_name: bool,
}

#[derive(Debug)]
struct Known {
    resource: Resource,
    owner: Owner,
    list: u32,
}

impl Owners {
    pub(super) fn new(extract: &Extract) -> Self {
        Self {
            known: HashMap::new(),
            waiting: HashMap::new(),
            lists: [0; 2],
            wants_deployments: extract.wants(config::Metadata::DeploymentName),
            wants_cronjobs: extract.wants(config::Metadata::CronjobName),
            deployment_from_name: extract.deployment_name_from_replicaset,
        }
    }

    /// What a pod belongs to in the end, as far as is known.
    pub(super) fn of(&self, pod: &Metadata, strings: &mut Strings) -> Owner {
        // The node "controls" the pods that its files describe, which says nothing about what they are.
        let Some(controller) = pod.controller().filter(|controller| controller.kind != "Node") else {
            return (strings.share("Pod"), strings.share(&pod.name));
        };
        if let Some(known) = self.known.get(controller.uid.as_str()) {
            return known.owner.clone();
        }
        let is_replica_set = controller.kind == "ReplicaSet" && self.wants_deployments;
        if is_replica_set && self.deployment_from_name {
            return (strings.share("Deployment"), strings.share(deployment(controller, pod)));
        }
        (strings.share(&controller.kind), strings.share(&controller.name))
    }

    /// The controller of a pod if it is of a kind that has owners itself. If it is not known, the pod waits for it.
    pub(super) fn wait(&mut self, pod: &Metadata, strings: &mut Strings) -> Option<Arc<str>> {
        let controller = pod.controller()?;
        let has_owners = match controller.kind.as_str() {
            "ReplicaSet" => self.wants_deployments && !self.deployment_from_name,
            "Job" => self.wants_cronjobs,
            _ => false,
        };
        if !has_owners {
            return None;
        }
        let uid = strings.share(&controller.uid);
        if !self.known.contains_key(&uid) {
            let pods = self.waiting.entry(Arc::clone(&uid)).or_default();
            if !pods.iter().any(|waiting| **waiting == *pod.uid) {
                pods.push(pod.uid.as_str().into());
            }
        }
        Some(uid)
    }

    /// The pod waits no longer.
    pub(super) fn stop_waiting(&mut self, controller: &str, pod: &str) {
        if let Some(pods) = self.waiting.get_mut(controller) {
            pods.retain(|waiting| **waiting != *pod);
            if pods.is_empty() {
                self.waiting.remove(controller);
            }
        }
    }

    /// Takes in a replica set or job; returns the pods that waited for it.
    pub(super) fn apply(
        &mut self,
        resource: Resource,
        owned: &Metadata,
        strings: &mut Strings,
    ) -> Vec<Arc<str>> {
        let owner = match (owned.controller(), resource) {
            (Some(controller), _) => (strings.share(&controller.kind), strings.share(&controller.name)),
            (None, Resource::Jobs) => (strings.share("Job"), strings.share(&owned.name)),
            (None, _) => (strings.share("ReplicaSet"), strings.share(&owned.name)),
        };
        let known = Known { resource, owner, list: self.lists[position(resource)] };
        self.known.insert(strings.share(&owned.uid), known);
        self.waiting.remove(owned.uid.as_str()).unwrap_or_default()
    }

    /// What the replica set or job with this identifier belongs to.
    pub(super) fn controller_of(&self, uid: &str) -> Option<Owner> {
        self.known.get(uid).map(|known| known.owner.clone())
    }

    pub(super) fn delete(&mut self, uid: &str) {
        self.known.remove(uid);
    }

    pub(super) fn begin_list(&mut self, resource: Resource) {
        self.lists[position(resource)] += 1;
    }

    pub(super) fn end_list(&mut self, resource: Resource) {
        let list = self.lists[position(resource)];
        self.known.retain(|_, known| known.resource != resource || known.list == list);
    }
}

const fn position(resource: Resource) -> usize {
    match resource {
        Resource::Jobs => 1,
        _ => 0,
    }
}

/// Name of the deployment in that of the replica set: without the hash that the pod is labelled with, else without the
/// last part.
fn deployment<'a>(replica_set: &'a OwnerReference, pod: &Metadata) -> &'a str {
    let name = replica_set.name.as_str();
    let hash = pod.labels.get(TEMPLATE_HASH);
    hash.and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'))
        .or_else(|| name.rsplit_once('-').map(|(deployment, _)| deployment))
        .unwrap_or(name)
}
