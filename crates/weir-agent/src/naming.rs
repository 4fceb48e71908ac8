//! [`Naming`]: who gives names to the ends of flows, as configured, started and kept alive.

use std::sync::Arc;

use tokio::runtime::Runtime;

use crate::{
    causes::with_causes,
    config::Config,
    enrich::{
        ContainerEnricher, Containers, Enrich, Enrichers, QualityEnricher, WorkloadEnricher,
        containers::ContainerWatch,
    },
    journal,
    kubernetes::{ConnectError, Kubernetes},
};

/// Sources of names. They end when this is dropped.
pub struct Naming {
    /// To be applied to the records of each tick.
    pub enrichers: Enrichers,
    /// Names from a cluster, if there is one.
    pub kubernetes: Arc<Kubernetes>,
    /// Looks for containers.
    pub containers: Option<ContainerWatch>,
}

impl Naming {
    /// Starts to look for containers, to ask sockets, and to watch the cluster if there is one. What cannot be seen has no
    /// names and no quality, and nothing else is different.
    pub fn start(config: &Config, runtime: &Runtime) -> Result<Self, ConnectError> {
        let (containers, watch) = match Containers::watch() {
            Ok((containers, watch)) => (containers, Some(watch)),
            Err(error) => {
                journal::warn(format_args!("no names of containers: {}", with_causes(&error)));
                (Containers::default(), None)
            }
        };
        let kubernetes = runtime.block_on(Kubernetes::start(&config.kubernetes))?;
        let mut enrichers: Vec<Box<dyn Enrich>> = Vec::new();
        if watch.is_some() {
            enrichers.push(Box::new(ContainerEnricher::new(containers.clone())));
        }
        if config.tcp_quality {
            match QualityEnricher::attach() {
                Ok(quality) => enrichers.push(Box::new(quality)),
                Err(error) => {
                    journal::warn(format_args!(
                        "no round-trip times and retransmits: {}",
                        with_causes(&error)
                    ));
                }
            }
        }
        match kubernetes.status().off {
            Some(reason) => journal::info(format_args!("no names from Kubernetes: {reason}")),
            None => enrichers.push(Box::new(WorkloadEnricher::new(
                kubernetes.names(),
                containers,
                &config.kubernetes,
            ))),
        }
        let (enrichers, kubernetes) = (Enrichers::new(enrichers), Arc::new(kubernetes));
        Ok(Self { enrichers, kubernetes, containers: watch })
    }
}
