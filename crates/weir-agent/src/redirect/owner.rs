//! [`Owner`]: the way to the one thread that owns the proxy.
//!
//! Whoever wants something sends what is to be done. The queue is bounded: whoever finds it full waits.

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::proxy::Proxy;

/// Most requests that wait.
const WAITING: usize = 256;

/// Something to do.
pub(super) type Work = Box<dyn FnOnce(&mut Proxy) + Send>;

/// The proxy is ending.
#[derive(Clone, Copy, Debug, Error)]
#[error("the control process is ending")]
pub(super) struct Ending;

/// The way to the thread that owns the proxy.
#[derive(Clone)]
pub(super) struct Owner(mpsc::Sender<Work>);

impl Owner {
    /// The way, and where it leads.
    pub(super) fn new() -> (Self, mpsc::Receiver<Work>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Has something done, some time soon.
    pub(super) async fn tell(&self, work: impl FnOnce(&mut Proxy) + Send + 'static) -> Result<(), Ending> {
        self.0.send(Box::new(work)).await.map_err(|_closed| Ending)
    }

    /// The same, from a thread that may wait.
    pub(super) fn tell_blocking(&self, work: impl FnOnce(&mut Proxy) + Send + 'static) -> Result<(), Ending> {
        self.0.blocking_send(Box::new(work)).map_err(|_closed| Ending)
    }

    /// Has something done and waits for what comes of it.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Proxy) -> T + Send + 'static,
    ) -> Result<T, Ending> {
        let (answer, answered) = oneshot::channel();
        // Whoever asked may have gone away; then nobody misses the answer.
        self.tell(move |proxy| drop(answer.send(work(proxy)))).await?;
        answered.await.map_err(|_dropped| Ending)
    }
}
