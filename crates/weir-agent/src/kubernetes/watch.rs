//! One list and watch at the API server, for as long as Weir runs.
//!
//! Lists come in pages, watches begin where the list or the last event ended, and bookmarks keep that place fresh. A
//! place that is too old (410 Gone) means a new list; everything else is tried again with growing pauses. What is told:
//! that the server is heard of (also if it has nothing to say), that it is not, and that it refuses.
//!
//! It is not `kube::runtime::watcher`, because that keeps to itself when a watch goes on again after an error, and
//! when there was a bookmark; without these nobody could know whether a quiet cluster is quiet or gone.

use std::{
    hash::{BuildHasher, RandomState},
    pin::pin,
    time::Duration,
};

use futures_util::TryStreamExt;
use kube::{
    Client,
    api::{ListParams, WatchEvent, WatchParams},
    core::Request,
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc::Sender, time};

use super::{
    cluster::{Change, Object, Resource},
    objects::{EndpointSlice, Listed, Node, Owned, Page, Pod, Service},
};

/// Objects in one page of a list: a few megabytes at a time, for large pods.
const PAGE: u32 = 250;

/// How long the server goes on with one watch.
const WATCH: Duration = Duration::from_mins(4);

/// After this without even a bookmark (the server sends one each minute) the connection is taken for dead.
const SILENCE: Duration = Duration::from_secs(100);

/// How long one page of a list may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Pauses between attempts.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What to list and watch.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) resource: Resource,
    pub(super) path: String,
    pub(super) field_selector: Option<String>,
}

/// What is told to the task that keeps the index.
#[derive(Debug)]
pub(super) enum News {
    /// Something about the cluster.
    Change(Change),
    /// Why the server is not heard of, or refuses; a [`Change`] precedes it.
    Trouble(Resource, String),
}

/// Why one round is over.
#[derive(Debug)]
enum Stop {
    /// The place where the watch should go on is too old.
    Expired,
    Failed(kube::Error),
    Silent,
    /// Nobody listens to us any more.
    Closed,
}

impl From<kube::Error> for Stop {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 410 => Self::Expired,
            _ => Self::Failed(error),
        }
    }
}

/// Follows one kind of objects until nobody listens any more.
pub(super) async fn follow(client: Client, watch: Watch, news: Sender<News>) {
    let follower = Follower { client, watch, news };
    match follower.watch.resource {
        Resource::Pods => follower.run::<Pod>(|pod| Object::Pod(Box::new(pod))).await,
        Resource::Nodes => follower.run::<Node>(|node| Object::Node(Box::new(node))).await,
        Resource::Services => follower.run::<Service>(|service| Object::Service(Box::new(service))).await,
        Resource::EndpointSlices => {
            follower.run::<EndpointSlice>(|slice| Object::EndpointSlice(Box::new(slice))).await;
        }
        Resource::ReplicaSets | Resource::Jobs => {
            follower.run::<Owned>(|owned| Object::Owned(Box::new(owned))).await;
        }
    }
}

struct Follower {
    client: Client,
    watch: Watch,
    news: Sender<News>,
}

impl Follower {
    async fn run<T: Listed + DeserializeOwned + Clone>(&self, object: fn(T) -> Object) {
        // Where the next watch begins.
        let mut place = None;
        let mut pause = SHORTEST_PAUSE;
        loop {
            let stop = match &mut place {
                None => match self.list(object).await {
                    Ok(version) => {
                        place = Some(version);
                        pause = SHORTEST_PAUSE;
                        continue;
                    }
                    Err(stop) => stop,
                },
                Some(version) => match self.watch(version, object, &mut pause).await {
                    Ok(()) => continue,
                    Err(stop) => stop,
                },
            };
            if matches!(stop, Stop::Closed) || self.tell(&stop).await.is_err() {
                return;
            }
            if matches!(stop, Stop::Expired) {
                place = None;
            }
            time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Reads a list page by page; returns where to go on.
    async fn list<T: Listed + DeserializeOwned + Clone>(
        &self,
        object: fn(T) -> Object,
    ) -> Result<String, Stop> {
        let resource = self.watch.resource;
        let mut parameters = ListParams { limit: Some(PAGE), ..ListParams::default() };
        parameters.field_selector.clone_from(&self.watch.field_selector);
        let mut is_first = true;
        loop {
            let request = Request::new(&self.watch.path);
            let request = if self.wants_metadata_only() {
                request.list_metadata(&parameters)
            } else {
                request.list(&parameters)
            };
            let request = request.map_err(kube::Error::BuildRequest)?;
            let page: Page<T> = match time::timeout(PATIENCE, self.client.request(request)).await {
                Ok(page) => page?,
                Err(_) => return Err(Stop::Silent),
            };
            if is_first {
                self.send(Change::Listing(resource)).await?;
                is_first = false;
            }
            for item in page.items {
                self.send(Change::Applied(resource, object(item))).await?;
            }
            match page.metadata.r#continue {
                Some(token) if !token.is_empty() => parameters.continue_token = Some(token),
                _ => {
                    self.send(Change::Listed(resource)).await?;
                    return Ok(page.metadata.resource_version);
                }
            }
        }
    }

    /// Watches from `version` on, which follows what was heard, until the server ends it or something is wrong.
    async fn watch<T: Listed + DeserializeOwned + Clone>(
        &self,
        version: &mut String,
        object: fn(T) -> Object,
        pause: &mut Duration,
    ) -> Result<(), Stop> {
        let resource = self.watch.resource;
        let parameters = WatchParams {
            field_selector: self.watch.field_selector.clone(),
            timeout: u32::try_from(WATCH.as_secs()).ok(),
            ..WatchParams::default()
        };
        let request = Request::new(&self.watch.path);
        let request = if self.wants_metadata_only() {
            request.watch_metadata(&parameters, version)
        } else {
            request.watch(&parameters, version)
        };
        let request = request.map_err(kube::Error::BuildRequest)?;
        let Ok(events) = time::timeout(PATIENCE, self.client.request_events::<T>(request)).await else {
            return Err(Stop::Silent);
        };
        let mut events = pin!(events?);
        // The server answers before there is any event: from here on every change is told.
        self.send(Change::Heard(resource)).await?;
        loop {
            let event = match time::timeout(SILENCE, events.try_next()).await {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(Stop::Silent),
            };
            *pause = SHORTEST_PAUSE;
            let change = match event {
                WatchEvent::Added(item) | WatchEvent::Modified(item) => {
                    version.clone_from(&item.metadata().resource_version);
                    Change::Applied(resource, object(item))
                }
                WatchEvent::Deleted(item) => {
                    version.clone_from(&item.metadata().resource_version);
                    Change::Deleted(resource, object(item))
                }
                WatchEvent::Bookmark(bookmark) => {
                    *version = bookmark.metadata.resource_version;
                    Change::Heard(resource)
                }
                WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
            };
            self.send(change).await?;
        }
    }

    async fn tell(&self, stop: &Stop) -> Result<(), Stop> {
        let resource = self.watch.resource;
        let (change, trouble) = match stop {
            Stop::Closed => return Ok(()),
            // Part of everyday life: the next list follows at once.
            Stop::Expired => return self.send(Change::Lost(resource)).await,
            Stop::Silent => (Change::Lost(resource), "no answer".to_owned()),
            Stop::Failed(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
                (Change::Refused(resource), status.message.clone())
            }
            Stop::Failed(error) => (Change::Lost(resource), with_causes(error)),
        };
        // The reason first: whoever sees that it was lost sees why.
        self.hand_over(News::Trouble(resource, trouble)).await?;
        self.send(change).await
    }

    async fn send(&self, change: Change) -> Result<(), Stop> {
        self.hand_over(News::Change(change)).await
    }

    async fn hand_over(&self, news: News) -> Result<(), Stop> {
        if self.news.send(news).await.is_ok() { Ok(()) } else { Err(Stop::Closed) }
    }

    /// Of replica sets and jobs nothing else is needed, and the rest is large.
    const fn wants_metadata_only(&self) -> bool {
        matches!(self.watch.resource, Resource::ReplicaSets | Resource::Jobs)
    }
}

/// Half of the pause and a random part of the other half, so that the agents of a cluster do not come back together.
fn jittered(pause: Duration) -> Duration {
    // Every state has random keys.
    let random = RandomState::new().hash_one(0_u8).to_be_bytes()[0];
    pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u8::MAX))
}

fn with_causes(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
