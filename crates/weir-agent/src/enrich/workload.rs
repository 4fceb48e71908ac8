//! Workloads of a cluster for the ends of flows.
//!
//! The socket of a local end tells the container, and that the pod: also for pods that share the addresses of their
//! node. For all others the address and the time of the flow decide.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use weir_flow::{Detail, Endpoint, Record, Unknown, Workload, WorkloadConfidence, WorkloadKind};

use super::{Containers, Enrich, Miss, containers::Located, translation};
use crate::kubernetes::{
    KubernetesConfig, Names,
    config::{Attribute, Source},
    names::Span,
};

/// Puts workloads into records.
#[derive(Debug)]
pub struct WorkloadEnricher {
    names: Arc<ArcSwap<Names>>,
    containers: Containers,
    association: Vec<Source>,
    misses: [AtomicU64; Unknown::ALL.len()],
}

impl WorkloadEnricher {
    /// Looks up in the newest `names`; sockets are found in `containers`.
    pub fn new(names: Arc<ArcSwap<Names>>, containers: Containers, config: &KubernetesConfig) -> Self {
        Self { names, containers, association: config.association(), misses: Default::default() }
    }

    /// Names one end; returns why not.
    fn name(&self, names: &Names, end: &mut Endpoint, span: Span) -> Option<Unknown> {
        let mut reason = None;
        // Most ends are on other machines and have no socket here.
        let has_socket = end.owner.cgroup != 0 || end.process.is_some();
        let located = if has_socket { self.containers.at(end) } else { None };
        for source in &self.association {
            let found = match source {
                Source::ResourceAttribute { name } => {
                    located.as_deref().and_then(|located| by_socket(names, end, located, *name))
                }
                Source::Connection => match names.by_address(end.address, span) {
                    Ok((workload, confidence)) => Some((Arc::clone(workload), confidence)),
                    Err(unknown) => {
                        reason = Some(unknown);
                        None
                    }
                },
            };
            if let Some((workload, confidence)) = found {
                if workload.kind == WorkloadKind::Service {
                    end.identity.service = Some(Arc::clone(&workload));
                }
                end.identity.workload = Some(workload);
                end.identity.confidence = Some(confidence);
                return None;
            }
        }
        // Without addresses among the ways it is the socket that is not known.
        let reason = reason.unwrap_or(Unknown::NoPodForAddress);
        end.identity.unknown = Some(reason);
        Some(reason)
    }
}

/// The pod of a socket, and its container if that is how it was found.
fn by_socket(
    names: &Names,
    end: &mut Endpoint,
    located: &Located,
    attribute: Attribute,
) -> Option<(Arc<Workload>, WorkloadConfidence)> {
    let pod = match attribute {
        Attribute::ContainerId => {
            let contained = names.by_container(&located.place.container?)?;
            end.identity.container = Some(Arc::clone(&contained.container));
            &contained.pod
        }
        Attribute::PodUid => names.by_pod_uid(located.place.pod?)?,
    };
    Some((Arc::clone(pod), WorkloadConfidence::Proven))
}

impl Enrich for WorkloadEnricher {
    fn enrich(&self, records: &mut [Record]) {
        // One snapshot for all records of a tick, so that they agree with each other.
        let names = self.names.load();
        let mut misses = [0_u64; Unknown::ALL.len()];
        for record in records.iter_mut() {
            let span = Span { start: record.start, end: record.end };
            for end in [&mut record.source, &mut record.destination] {
                let unknown = match record.detail {
                    Detail::Flow => self.name(&names, end, span),
                    Detail::Folded => {
                        end.identity.unknown = Some(Unknown::Folded);
                        Some(Unknown::Folded)
                    }
                };
                if let Some(unknown) = unknown {
                    misses[unknown as usize] += 1;
                }
            }
        }
        translation::pods_behind_services(records, &names);
        for (all, new) in self.misses.iter().zip(misses) {
            all.fetch_add(new, Ordering::Relaxed);
        }
    }

    fn misses(&self) -> Vec<Miss> {
        let miss = |reason: Unknown| Miss {
            what: "workload",
            reason: reason.as_str(),
            ends: self.misses[reason as usize].load(Ordering::Relaxed),
        };
        Unknown::ALL.map(miss).into()
    }
}

#[cfg(test)]
mod tests;
