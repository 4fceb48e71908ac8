//! Who is at an end of a rebuilt record.

use std::sync::Arc;

use super::Fields;
use crate::{Container, Identity, Unknown, Workload, WorkloadConfidence, WorkloadKind, field::Value};

impl Fields<'_, '_> {
    /// The identity of the end called `source` or `destination`.
    pub(super) fn identity(&self, end: &str) -> Identity {
        let name = |attribute: &str| format!("{end}.{attribute}");
        let text = |attribute: &str| self.text(&name(attribute));
        let service = text("k8s.service.name").map(|service| {
            let kind: Arc<str> = "Service".into();
            Arc::new(Workload {
                kind: WorkloadKind::Service,
                namespace: text("k8s.namespace.name"),
                name: Arc::clone(&service),
                uid: "".into(),
                owner_kind: kind,
                owner_name: service,
                node: None,
                labels: Box::default(),
            })
        });
        let container = text("container.id")
            .map(|id| Arc::new(Container { id: id.as_ref().into(), name: text("container.name") }));
        Identity {
            workload: self.workload(end).map(Arc::new),
            confidence: self.some_of(
                &WorkloadConfidence::ALL,
                &name("k8s.confidence"),
                WorkloadConfidence::as_str,
            ),
            service,
            container,
            dns_name: text("dns.name"),
            unknown: self.some_of(&Unknown::ALL, &name("k8s.unknown"), Unknown::as_str),
        }
    }

    fn workload(&self, end: &str) -> Option<Workload> {
        let text = |attribute: &str| self.text(&format!("{end}.{attribute}"));
        let (owner_kind, owner_name) = (text("k8s.owner.kind")?, text("k8s.owner.name")?);
        let (pod, namespace) = (text("k8s.pod.name"), text("k8s.namespace.name"));
        // Only pods and services have a namespace.
        let kind = match (&pod, &namespace) {
            (Some(_), _) => WorkloadKind::Pod,
            (None, Some(_)) => WorkloadKind::Service,
            (None, None) => WorkloadKind::Node,
        };
        Some(Workload {
            kind,
            namespace,
            name: pod.unwrap_or_else(|| Arc::clone(&owner_name)),
            uid: text("k8s.pod.uid").as_deref().unwrap_or_default().into(),
            owner_kind,
            owner_name,
            node: text("k8s.node.name"),
            labels: self.labels(end),
        })
    }

    fn labels(&self, end: &str) -> Box<[(Arc<str>, Arc<str>)]> {
        let Value::Text(text) = self.get(&format!("{end}.k8s.pod.labels")) else { return Box::default() };
        // A value of a label has neither a comma nor an equals sign.
        let pairs = text.split(',').filter_map(|label| label.split_once('='));
        pairs.map(|(name, value)| (name.into(), value.into())).collect()
    }
}
