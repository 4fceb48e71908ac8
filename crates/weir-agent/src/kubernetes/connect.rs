//! The way to the API server: service account, else kubeconfig, else none.

use std::{env, path::PathBuf};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::config::{AuthType, KubernetesConfig};

/// Variable that every pod has.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// Why there is no way to the API server, though one is configured.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The service account cannot be used.
    #[error(
        "cannot use the service account: run in a pod with a mounted token, or set kubernetes.kubeconfig"
    )]
    ServiceAccount(#[source] kube::config::InClusterError),
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// There is no kubeconfig.
    #[error("auth_type is kubeConfig, but there is no kubeconfig: set kubernetes.kubeconfig or KUBECONFIG")]
    NoKubeconfig,
    /// The client cannot be made.
    #[error("cannot set up the connection to the API server")]
    Client(#[source] kube::Error),
    /// The variable that should name the node is not set.
    #[error("kubernetes.filter.node_from_env_var: the variable {0} is not set")]
    NoNode(String),
}

/// A client, or in words why there is none and none is asked for.
pub(super) async fn client(config: &KubernetesConfig) -> Result<Result<Client, &'static str>, ConnectError> {
    let found = match config.auth_type {
        AuthType::None => return Ok(Err("switched off by kubernetes.auth_type")),
        AuthType::ServiceAccount => service_account()?,
        AuthType::KubeConfig => kubeconfig(config).await?.ok_or(ConnectError::NoKubeconfig)?,
        AuthType::Auto if config.kubeconfig.is_none() && env::var_os(IN_CLUSTER).is_some() => {
            service_account()?
        }
        AuthType::Auto => match kubeconfig(config).await? {
            Some(found) => found,
            None => return Ok(Err("neither in a pod with a service account nor a kubeconfig")),
        },
    };
    Client::try_from(found).map(Ok).map_err(ConnectError::Client)
}

fn service_account() -> Result<Config, ConnectError> {
    Config::incluster().map_err(ConnectError::ServiceAccount)
}

async fn kubeconfig(config: &KubernetesConfig) -> Result<Option<Config>, ConnectError> {
    let Some(path) = kubeconfig_path(config) else { return Ok(None) };
    let options = KubeConfigOptions { context: config.context.clone(), ..KubeConfigOptions::default() };
    let error = |source| ConnectError::Kubeconfig { path: path.clone(), source };
    let file = Kubeconfig::read_from(&path).map_err(error)?;
    Config::from_custom_kubeconfig(file, &options).await.map(Some).map_err(error)
}

/// The file that is configured, else one that is there.
fn kubeconfig_path(config: &KubernetesConfig) -> Option<PathBuf> {
    if let Some(path) = &config.kubeconfig {
        return Some(path.clone());
    }
    let from_variable =
        env::var_os("KUBECONFIG").into_iter().flat_map(|paths| env::split_paths(&paths).collect::<Vec<_>>());
    let usual = env::home_dir().map(|home| home.join(".kube/config"));
    from_variable.chain(usual).find(|path| path.is_file())
}
