//! [`Settled`]: flows that have names keep them until they end, however long after the names are no longer valid.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hashbrown::HashMap;
use weir_flow::{Monotonic, Record};

use super::talks::Place;

/// Most flows. About 10 MiB.
pub(super) const MOST_FLOWS: usize = 65_536;

/// How long a flow is remembered that is not heard of: those that go on have a record a minute.
const KEPT: Duration = Duration::from_mins(15);

#[derive(Debug)]
struct Flow {
    /// Names of its addresses.
    names: Vec<(IpAddr, Arc<str>)>,
    /// When it began: the same tuple may come again.
    began: Monotonic,
    heard: Monotonic,
}

/// Flows with names.
#[derive(Debug, Default)]
pub(super) struct Settled {
    flows: HashMap<Place, Flow>,
    swept: Monotonic,
}

impl Settled {
    /// Gives a record the names that its flow has. False if it has none.
    pub(super) fn name(&mut self, record: &mut Record) -> bool {
        if self.flows.is_empty() {
            return false;
        }
        let place = Place::new(record.point.ifindex, record.tuple);
        let Some(flow) = self.flows.get_mut(&place) else { return false };
        if flow.began != record.first {
            return false;
        }
        flow.heard = record.last;
        for end in [&mut record.source, &mut record.destination] {
            let name = flow.names.iter().find(|(address, _)| *address == end.address);
            end.identity.dns_name = name.map(|(_, name)| Arc::clone(name));
        }
        if record.end_reason.is_some() {
            self.flows.remove(&place);
        }
        true
    }

    /// Remembers the names of a record, if it has any and its flow goes on. False if there is no room.
    pub(super) fn keep(&mut self, record: &Record) -> bool {
        let named = |end: &weir_flow::Endpoint| Some((end.address, end.identity.dns_name.clone()?));
        let names: Vec<_> = [&record.source, &record.destination].into_iter().filter_map(named).collect();
        if names.is_empty() || record.end_reason.is_some() {
            return true;
        }
        if self.flows.len() >= MOST_FLOWS {
            return false;
        }
        let place = Place::new(record.point.ifindex, record.tuple);
        self.flows.insert(place, Flow { names, began: record.first, heard: record.last });
        true
    }

    /// Forgets, once a minute, flows that are not heard of any more.
    pub(super) fn expire(&mut self, now: Monotonic) {
        if now - self.swept >= Duration::from_mins(1) {
            self.swept = now;
            self.flows.retain(|_, flow| now - flow.heard < KEPT);
        }
    }
}
