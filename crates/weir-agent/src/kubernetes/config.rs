//! The section `kubernetes` of the configuration.
//!
//! Where the `k8sattributes` processor of the OpenTelemetry Collector has a setting for the same thing, it has the same
//! name here.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names of pods, services and nodes from the API server of a Kubernetes cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesConfig {
    /// How to get to the API server.
    pub auth_type: AuthType,
    /// File with clusters and users; without it `$KUBECONFIG`, then `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Context in that file; without it the one that the file says is current.
    pub context: Option<String>,
    /// Which pods to ask for.
    pub filter: Filter,
    /// What to keep of them.
    pub extract: Extract,
    /// Ways to find the pod at an end of a flow, the best first. Without any: `container.id`, `k8s.pod.uid`, then the
    /// address (`from: connection`).
    pub pod_association: Vec<Association>,
}

/// How to get to the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AuthType {
    /// By the service account of the pod that Weir runs in, else by a kubeconfig file; without either there are no names.
    #[default]
    Auto,
    /// By the service account of the pod that Weir runs in.
    ServiceAccount,
    /// By a kubeconfig file.
    KubeConfig,
    /// Not at all.
    None,
}

/// Which pods to ask for. Nodes and services are always all of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Only pods of this node. The other end of a flow is then mostly unknown.
    pub node: Option<String>,
    /// The same, with the name of the node taken from this environment variable.
    pub node_from_env_var: Option<String>,
    /// Only pods, services and endpoints of this namespace.
    pub namespace: Option<String>,
}

/// What to keep of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Extract {
    /// Which names to find out. Leaving some out saves memory and permissions. Without it: all.
    pub metadata: Option<Vec<Metadata>>,
    /// Labels of pods to keep, for `….k8s.pod.labels`.
    pub labels: Vec<Label>,
    /// Takes the name of a deployment from that of the replica set, so that replica sets need not be listed.
    pub deployment_name_from_replicaset: bool,
}

/// A name that can be left out. Namespace, pod and what directly owns the pod are always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Metadata {
    /// Deployments behind replica sets; lists replica sets.
    #[serde(rename = "k8s.deployment.name")]
    DeploymentName,
    /// Cron jobs behind jobs; lists jobs.
    #[serde(rename = "k8s.cronjob.name")]
    CronjobName,
    /// Nodes; lists nodes.
    #[serde(rename = "k8s.node.name")]
    NodeName,
    /// Services and the pods behind them; lists services and endpoint slices.
    #[serde(rename = "k8s.service.name")]
    ServiceName,
}

/// A label to keep.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The label.
    pub key: String,
    /// Name to show instead of the label's own.
    #[serde(default)]
    pub tag_name: Option<String>,
    /// What has the label.
    #[serde(default)]
    pub from: LabelFrom,
}

/// What has a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LabelFrom {
    /// The pod.
    #[default]
    Pod,
}

/// One way to find a pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Association {
    /// What finds it; exactly one.
    pub sources: [Source; 1],
}

/// What finds a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// Its address, at the time of the flow.
    Connection,
    /// Something that is known of the socket.
    ResourceAttribute {
        /// What.
        name: Attribute,
    },
}

/// What may be known of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Attribute {
    /// The container that it belongs to.
    #[serde(rename = "container.id")]
    ContainerId,
    /// The pod that its control group names.
    #[serde(rename = "k8s.pod.uid")]
    PodUid,
}

impl Filter {
    /// The node that this is, where the configuration or the usual variable says so.
    pub(crate) fn this_node(&self, variables: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        let named = || variables(self.node_from_env_var.as_deref().unwrap_or("KUBE_NODE_NAME"));
        self.node.clone().or_else(named).filter(|node| !node.is_empty())
    }
}

impl Extract {
    /// Whether this name is to be found out.
    pub fn wants(&self, metadata: Metadata) -> bool {
        self.metadata.as_ref().is_none_or(|wanted| wanted.contains(&metadata))
    }
}

impl KubernetesConfig {
    /// The ways to find a pod, those of the default included.
    pub fn association(&self) -> Vec<Source> {
        if self.pod_association.is_empty() {
            return vec![
                Source::ResourceAttribute { name: Attribute::ContainerId },
                Source::ResourceAttribute { name: Attribute::PodUid },
                Source::Connection,
            ];
        }
        self.pod_association.iter().map(|association| association.sources[0]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_the_collector_are_understood() {
        let text = r#"{
            "auth_type": "serviceAccount",
            "filter": {"node_from_env_var": "KUBE_NODE_NAME"},
            "extract": {
                "metadata": ["k8s.deployment.name", "k8s.node.name"],
                "labels": [{"tag_name": "app", "key": "app.kubernetes.io/name", "from": "pod"}]
            },
            "pod_association": [
                {"sources": [{"from": "resource_attribute", "name": "container.id"}]},
                {"sources": [{"from": "connection"}]}
            ]
        }"#;
        let config: KubernetesConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.auth_type, AuthType::ServiceAccount);
        assert!(config.extract.wants(Metadata::NodeName) && !config.extract.wants(Metadata::ServiceName));
        assert_eq!(config.association().len(), 2);
        let back = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<KubernetesConfig>(&back).unwrap(), config);
    }

    #[test]
    fn nothing_said_is_everything_wanted() {
        let config: KubernetesConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(config, KubernetesConfig::default());
        assert!(config.extract.wants(Metadata::ServiceName));
        assert_eq!(config.association().last(), Some(&Source::Connection));
    }

    #[test]
    fn unknown_settings_are_errors() {
        for text in
            [r#"{"filters": {}}"#, r#"{"filter": {"labels": []}}"#, r#"{"extract": {"annotations": []}}"#]
        {
            assert!(serde_json::from_str::<KubernetesConfig>(text).is_err(), "{text}");
        }
    }
}
