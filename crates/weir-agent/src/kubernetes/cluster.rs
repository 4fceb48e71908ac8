//! [`Cluster`]: what the watches tell, event by event, made into [`Names`]. No I/O and no clock.
//!
//! It keeps what it needs of each object and nothing else: well below 1 KiB per pod. Lists that are read anew are
//! compared with what is there; what is not in them any more is over. What is over stays for [`GRACE`], for flows
//! whose records come late.

use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};

use hashbrown::HashMap;
use weir_flow::Wall;

use super::{
    backends::{ServiceName, Slices},
    config::{Extract, Metadata},
    names::{Contained, ListState, Names, PodUid, Table},
    objects::{EndpointSlice, Node, Owned, Pod, Port, Service},
};

mod describe;
mod owners;
mod strings;
#[cfg(test)]
mod tests;
mod things;

use self::{
    describe::Describer,
    owners::Owners,
    things::{Thing, Things},
};

/// How long after its end a pod is still found for flows of its time.
pub const GRACE: Duration = Duration::from_mins(5);

/// Label by which a slice tells its service.
pub(super) const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A kind of objects that is listed and watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Pods.
    Pods,
    /// Nodes.
    Nodes,
    /// Services.
    Services,
    /// Where services lead.
    EndpointSlices,
    /// Between pods and deployments.
    ReplicaSets,
    /// Between pods and cron jobs.
    Jobs,
}

/// An object, as far as it is read.
#[derive(Clone, Debug)]
pub enum Object {
    /// A pod.
    Pod(Box<Pod>),
    /// A node.
    Node(Box<Node>),
    /// A service.
    Service(Box<Service>),
    /// Endpoints of a service.
    EndpointSlice(Box<EndpointSlice>),
    /// A replica set or a job.
    Owned(Box<Owned>),
}

/// News from the API server.
#[derive(Clone, Debug)]
pub enum Change {
    /// A list begins; what is not in it will be gone.
    Listing(Resource),
    /// The object exists and is like this: from a list or a watch.
    Applied(Resource, Object),
    /// The object is gone; this was its last state.
    Deleted(Resource, Object),
    /// The list is complete.
    Listed(Resource),
    /// The API server is heard of, and every change will be told.
    Heard(Resource),
    /// The API server is not heard of any more.
    Lost(Resource),
    /// The API server refuses this kind.
    Refused(Resource),
}

/// The cluster, as far as names need it.
#[derive(Debug)]
pub struct Cluster {
    names: Names,
    pods: Things,
    nodes: Things,
    services: Things,
    /// Ports of services by identifier, and which slices belong to them.
    ports: HashMap<Arc<str>, ServicePorts>,
    by_name: HashMap<ServiceName, Arc<str>>,
    slices: Slices,
    slice_list: u32,
    owners: Owners,
    describer: Describer,
    ended: VecDeque<Ended>,
}

#[derive(Debug)]
struct ServicePorts {
    name: ServiceName,
    ports: Box<[Port]>,
}

/// What is to be forgotten, and when.
#[derive(Debug)]
struct Ended {
    at: Wall,
    resource: Resource,
    thing: Thing,
}

impl Cluster {
    /// An empty one.
    pub fn new(extract: &Extract) -> Self {
        let mut names = Names::default();
        names.pods.state = ListState::Incomplete;
        if extract.wants(Metadata::NodeName) {
            names.nodes.state = ListState::Incomplete;
        }
        if extract.wants(Metadata::ServiceName) {
            names.services.state = ListState::Incomplete;
        }
        Self {
            names,
            pods: Things::default(),
            nodes: Things::default(),
            services: Things::default(),
            ports: HashMap::new(),
            by_name: HashMap::new(),
            slices: Slices::default(),
            slice_list: 0,
            owners: Owners::new(extract),
            describer: Describer::new(extract),
            ended: VecDeque::new(),
        }
    }

    /// What can be looked up, as of now.
    pub fn names(&self) -> Names {
        self.names.clone()
    }

    /// How many pods there are.
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    /// Takes in news that arrived at `now`.
    pub fn apply(&mut self, change: Change, now: Wall) {
        match change {
            Change::Listing(resource) => self.begin_list(resource, now),
            Change::Applied(_, Object::Pod(pod)) => self.apply_pod(&pod, now),
            Change::Applied(_, Object::Node(node)) => self.apply_node(&node, now),
            Change::Applied(_, Object::Service(service)) => self.apply_service(&service, now),
            Change::Applied(_, Object::EndpointSlice(slice)) => self.apply_slice(&slice, now),
            Change::Applied(resource, Object::Owned(owned)) => self.apply_owner(resource, &owned),
            Change::Deleted(_, Object::Pod(pod)) => {
                self.end(Resource::Pods, &pod.metadata.uid, describe::end(&pod, now), now);
            }
            Change::Deleted(_, Object::Node(node)) => self.end(Resource::Nodes, &node.metadata.uid, now, now),
            Change::Deleted(_, Object::Service(service)) => {
                self.end(Resource::Services, &service.metadata.uid, now, now);
            }
            Change::Deleted(_, Object::EndpointSlice(slice)) => self.delete_slice(&slice, now),
            Change::Deleted(_, Object::Owned(owned)) => self.owners.delete(&owned.metadata.uid),
            Change::Listed(resource) => self.end_list(resource, now),
            Change::Heard(resource) => self.hear(resource),
            Change::Lost(resource) => self.lose(resource, now),
            Change::Refused(resource) => self.refuse(resource, now),
        }
    }

    /// Forgets what ended longer than [`GRACE`] ago.
    pub fn sweep(&mut self, now: Wall) {
        while self.ended.front().is_some_and(|ended| ended.at + GRACE <= now) {
            let Some(Ended { at, resource, thing }) = self.ended.pop_front() else { break };
            let horizon = at;
            if let Some(table) = self.table(resource) {
                for address in &thing.addresses {
                    table.forget(*address, horizon);
                }
            }
            for id in &thing.containers {
                self.names.containers.remove(id);
            }
            if let Some(uid) = PodUid::parse(&thing.workload.uid)
                && resource == Resource::Pods
                && !self.pods.contains(&thing.workload.uid)
            {
                self.names.uids.remove(&uid);
            }
        }
        self.describer.strings.sweep();
    }

    fn apply_pod(&mut self, pod: &Pod, now: Wall) {
        if pod.metadata.uid.is_empty() {
            return;
        }
        if describe::is_over(pod) {
            self.end(Resource::Pods, &pod.metadata.uid, describe::end(pod, now), now);
            return;
        }
        let controller = self.owners.wait(&pod.metadata, &mut self.describer.strings);
        let owner = self.owners.of(&pod.metadata, &mut self.describer.strings);
        let workload = self.describer.pod(pod, owner);
        let containers = self.describer.containers(pod);
        let thing = Thing {
            workload,
            addresses: describe::pod_addresses(pod).into(),
            containers: containers.iter().map(|(id, _)| *id).collect(),
            controller,
        };
        let (workload, is_new, replaced) =
            self.pods.place(&mut self.names.pods, thing, describe::since(pod, now), now);
        if is_new && let Some(uid) = PodUid::parse(&workload.uid) {
            self.names.uids.insert(uid, Arc::clone(&workload));
        }
        for (id, name) in containers {
            let is_there = |known: &Contained| {
                Arc::ptr_eq(&known.pod, &workload) && known.container.name.as_deref() == Some(&*name)
            };
            if !self.names.containers.get(&id).is_some_and(is_there) {
                let container = describe::container(&id, name);
                self.names.containers.insert(id, Contained { pod: Arc::clone(&workload), container });
            }
        }
        self.note_end(Resource::Pods, replaced, now);
    }

    fn apply_node(&mut self, node: &Node, now: Wall) {
        if node.metadata.uid.is_empty() {
            return;
        }
        let thing = Thing::new(self.describer.node(node), describe::node_addresses(node));
        let since = describe::since_creation(&node.metadata, now);
        let (_, _, replaced) = self.nodes.place(&mut self.names.nodes, thing, since, now);
        self.note_end(Resource::Nodes, replaced, now);
    }

    fn apply_service(&mut self, service: &Service, now: Wall) {
        if service.metadata.uid.is_empty() {
            return;
        }
        let thing = Thing::new(self.describer.service(service), describe::service_addresses(service));
        let since = describe::since_creation(&service.metadata, now);
        let (workload, _, replaced) = self.services.place(&mut self.names.services, thing, since, now);
        self.note_end(Resource::Services, replaced, now);
        let name = self.describer.service_name(&service.metadata);
        self.by_name.insert(name.clone(), Arc::clone(&workload.uid));
        let ports = ServicePorts { name: name.clone(), ports: service.spec.ports.clone().into() };
        self.ports.insert(Arc::clone(&workload.uid), ports);
        self.connect(&name, now);
    }

    fn apply_slice(&mut self, slice: &EndpointSlice, now: Wall) {
        let Some(name) = self.service_of(slice) else { return };
        self.slices.apply(name.clone(), slice, self.slice_list);
        self.connect(&name, now);
    }

    fn delete_slice(&mut self, slice: &EndpointSlice, now: Wall) {
        let Some(name) = self.service_of(slice) else { return };
        self.slices.delete(&name, &slice.metadata.uid);
        self.connect(&name, now);
    }

    fn service_of(&mut self, slice: &EndpointSlice) -> Option<ServiceName> {
        let service = slice.metadata.labels.get(SERVICE_LABEL)?;
        let strings = &mut self.describer.strings;
        Some((strings.share(slice.metadata.namespace.as_deref().unwrap_or_default()), strings.share(service)))
    }

    /// Makes the table of where a service leads anew.
    fn connect(&mut self, name: &ServiceName, now: Wall) {
        let Some(uid) = self.by_name.get(name) else { return };
        let Some(service) = self.ports.get(uid) else { return };
        let before = self.names.backends.get(uid).cloned();
        let backends = self.slices.backends(name, &service.ports, before.as_deref(), now);
        self.names.backends.insert(Arc::clone(uid), Arc::new(backends));
    }

    /// A replica set or job became known: pods that belong to it may belong to something else in the end.
    fn apply_owner(&mut self, resource: Resource, owned: &Owned) {
        for uid in self.owners.apply(resource, &owned.metadata, &mut self.describer.strings) {
            let Some(thing) = self.pods.get(&uid) else { continue };
            let Some((owner_kind, owner_name)) =
                thing.controller.as_deref().and_then(|controller| self.owners.controller_of(controller))
            else {
                continue;
            };
            let mut workload = (*thing.workload).clone();
            (workload.owner_kind, workload.owner_name) = (owner_kind, owner_name);
            let workload = Arc::new(workload);
            self.describe_anew(&uid, &workload);
        }
    }

    fn describe_anew(&mut self, uid: &str, workload: &Arc<weir_flow::Workload>) {
        let Some(thing) = self.pods.describe(&mut self.names.pods, uid, workload) else { return };
        if let Some(uid) = PodUid::parse(uid) {
            self.names.uids.insert(uid, Arc::clone(workload));
        }
        for id in &thing.containers {
            if let Some(known) = self.names.containers.get(id).cloned() {
                self.names.containers.insert(*id, Contained { pod: Arc::clone(workload), ..known });
            }
        }
    }

    /// The thing is over since `until`, as was heard at `now`.
    fn end(&mut self, resource: Resource, uid: &str, until: Wall, now: Wall) {
        let (things, table) = match resource {
            Resource::Pods => (&mut self.pods, &mut self.names.pods),
            Resource::Nodes => (&mut self.nodes, &mut self.names.nodes),
            Resource::Services => (&mut self.services, &mut self.names.services),
            Resource::EndpointSlices | Resource::ReplicaSets | Resource::Jobs => return,
        };
        let Some(thing) = things.remove(table, uid, until) else { return };
        if let Some(controller) = &thing.controller {
            self.owners.stop_waiting(controller, uid);
        }
        if let Some(ServicePorts { name, .. }) = self.ports.remove(uid) {
            // A service of the same name may have been made since.
            if self.by_name.get(&name).is_some_and(|current| **current == *uid) {
                self.by_name.remove(&name);
            }
            self.names.backends.remove(&Arc::from(uid));
        }
        self.note_end(resource, Some(thing), now);
    }

    fn note_end(&mut self, resource: Resource, thing: Option<Thing>, now: Wall) {
        self.ended.extend(thing.map(|thing| Ended { at: now, resource, thing }));
    }

    fn begin_list(&mut self, resource: Resource, now: Wall) {
        match resource {
            Resource::Pods => self.pods.begin_list(),
            Resource::Nodes => self.nodes.begin_list(),
            Resource::Services => self.services.begin_list(),
            Resource::EndpointSlices => self.slice_list += 1,
            Resource::ReplicaSets | Resource::Jobs => self.owners.begin_list(resource),
        }
        self.lose(resource, now);
        if let Some(table) = self.table(resource)
            && table.state == ListState::Off
        {
            table.state = ListState::Incomplete;
        }
    }

    fn end_list(&mut self, resource: Resource, now: Wall) {
        let lost = match self.table(resource).map(|table| table.state) {
            Some(ListState::LostSince(since)) => since,
            _ => now,
        };
        let gone = match resource {
            Resource::Pods => self.pods.not_in_list(),
            Resource::Nodes => self.nodes.not_in_list(),
            Resource::Services => self.services.not_in_list(),
            Resource::EndpointSlices => {
                for name in self.slices.keep_list(self.slice_list) {
                    self.connect(&name, now);
                }
                Vec::new()
            }
            Resource::ReplicaSets | Resource::Jobs => {
                self.owners.end_list(resource);
                Vec::new()
            }
        };
        for uid in gone {
            self.end(resource, &uid, lost, now);
        }
        if let Some(table) = self.table(resource) {
            table.state = ListState::Current;
        }
    }

    fn hear(&mut self, resource: Resource) {
        if let Some(table) = self.table(resource)
            && matches!(table.state, ListState::LostSince(_))
        {
            table.state = ListState::Current;
        }
    }

    fn lose(&mut self, resource: Resource, now: Wall) {
        if let Some(table) = self.table(resource)
            && table.state == ListState::Current
        {
            table.state = ListState::LostSince(now);
        }
    }

    /// What was never allowed is not waited for. What was allowed before is as old as if the server were gone.
    fn refuse(&mut self, resource: Resource, now: Wall) {
        self.lose(resource, now);
        if let Some(table) = self.table(resource)
            && table.state == ListState::Incomplete
        {
            table.state = ListState::Off;
        }
    }

    fn table(&mut self, resource: Resource) -> Option<&mut Table> {
        match resource {
            Resource::Pods => Some(&mut self.names.pods),
            Resource::Nodes => Some(&mut self.names.nodes),
            Resource::Services => Some(&mut self.names.services),
            Resource::EndpointSlices | Resource::ReplicaSets | Resource::Jobs => None,
        }
    }
}

impl Thing {
    /// Something without containers.
    fn new(workload: weir_flow::Workload, addresses: Vec<IpAddr>) -> Self {
        Self {
            workload: Arc::new(workload),
            addresses: addresses.into(),
            containers: Box::default(),
            controller: None,
        }
    }
}

impl Resource {
    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Nodes => "nodes",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::ReplicaSets => "replicasets",
            Self::Jobs => "jobs",
        }
    }
}
