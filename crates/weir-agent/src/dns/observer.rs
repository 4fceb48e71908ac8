//! [`Observer`]: hears messages and completes records. No I/O, no clock.

use std::{net::SocketAddr, sync::Arc};

use weir_datapath::dns::DnsPacket;
use weir_flow::{Detail, Monotonic, Question, Record, RecordType, ResponseCode, Tuple};
use weir_packet::dns::Message;

use super::{
    Counts, Loss, chain,
    lookups::{Key, Lookups, Unanswered},
    names::Names,
    settled::Settled,
    talks::{Place, Talks},
};

/// The operation of a message that asks, or answers, a question (RFC 6895 2.2).
const QUERY: u8 = 0;

/// What is known of DNS.
#[derive(Debug, Default)]
pub struct Observer {
    ports: Vec<u16>,
    lookups: Lookups,
    talks: Talks,
    names: Names,
    settled: Settled,
    counts: Counts,
}

/// How much is known at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Lookups that wait for a response or had one a moment ago.
    pub lookups: usize,
    /// Names of addresses.
    pub names: usize,
}

impl Observer {
    /// An observer of messages at these ports.
    pub fn new(ports: Vec<u16>) -> Self {
        Self { ports, ..Self::default() }
    }

    /// Takes in a message at an interface.
    pub fn hear(&mut self, packet: &DnsPacket<'_>) {
        self.counts.messages += 1;
        self.counts.cut += u64::from(packet.body.is_cut);
        if let Err(loss) = self.understand(packet) {
            self.counts.lose(loss);
        }
    }

    fn understand(&mut self, packet: &DnsPacket<'_>) -> Result<(), Loss> {
        let unreadable = if packet.body.is_cut { Loss::Partial } else { Loss::Malformed };
        let message = Message::new(packet.body.bytes).ok_or(unreadable)?;
        if message.opcode() != QUERY {
            // What is cut may be the middle of a message and mean nothing at all.
            return Err(if packet.body.is_cut { Loss::Partial } else { Loss::OtherOperation });
        }
        let question = message.question();
        let has_question = question.is_some();
        let asked = question.map(|question| Question {
            name: question.name.to_string().into(),
            record_type: RecordType(question.record_type),
        });
        if message.is_response() {
            // Who refuses a query as a whole may leave the question out.
            if !has_question && message.questions() > 0 {
                return Err(unreadable);
            }
            self.response(packet, &message, asked.as_ref())
        } else {
            self.query(packet, message.id(), &asked.ok_or(unreadable)?)
        }
    }

    fn query(&mut self, packet: &DnsPacket<'_>, id: u16, question: &Question) -> Result<(), Loss> {
        let key = key(packet.tuple, id);
        let place = Place::new(packet.ifindex, packet.tuple);
        let replaced = self
            .lookups
            .query(key, question.clone(), (place, packet.role), packet.time)
            .map_err(|_no_room| Loss::LookupsFull)?;
        if let Some(unanswered) = replaced {
            give_up(&unanswered, packet.time, &mut self.talks, &mut self.counts);
        }
        self.talks.query(place, question, packet.time).map_err(|_no_room| Loss::FlowsFull)
    }

    fn response(
        &mut self,
        packet: &DnsPacket<'_>,
        message: &Message<'_>,
        question: Option<&Question>,
    ) -> Result<(), Loss> {
        let key = key(packet.tuple.reversed(), message.id());
        let answered = self.lookups.response(&key, question, packet.time).ok_or(Loss::Unasked)?;
        let code = ResponseCode::new(message.response_code());
        if answered.is_first {
            self.counts.answered(answered.role, code, answered.duration);
            self.learn(packet, message, &answered.question.name);
        }
        let place = Place::new(packet.ifindex, packet.tuple);
        let told = self.talks.response(place, &answered.question, (code, answered.duration), packet.time);
        told.map_err(|_no_room| Loss::FlowsFull)
    }

    fn learn(&mut self, packet: &DnsPacket<'_>, message: &Message<'_>, name: &Arc<str>) {
        let Some(question) = message.question() else { return };
        let client = packet.tuple.destination();
        for found in chain::addresses(question.name, message.answers()) {
            if !self.names.learn(client, name, found, packet.time) {
                self.counts.lose(Loss::NamesFull);
            }
        }
    }

    /// Gives up lookups whose time is over, and forgets what is too old. To be called after all messages of before were
    /// heard.
    pub fn expire(&mut self, now: Monotonic) {
        for unanswered in self.lookups.expire(now) {
            give_up(&unanswered, now, &mut self.talks, &mut self.counts);
        }
        for _ in 0..self.talks.expire(now) {
            self.counts.lose(Loss::NoRecord);
        }
        self.names.expire(now);
        self.settled.expire(now);
    }

    /// Completes the records of an interval: names at their ends, and what their messages said. Each record must come here
    /// once.
    pub fn complete(&mut self, records: &mut [Record]) {
        for record in records {
            if record.detail == Detail::Folded {
                continue;
            }
            if !self.settled.name(record) {
                self.name(record);
            }
            let tuple = record.tuple;
            let is_talk = tuple.has_ports()
                && (self.is_port(tuple.source_port()) || self.is_port(tuple.destination_port()));
            if is_talk && !self.talks.is_empty() {
                let place = Place::new(record.point.ifindex, tuple);
                let told = if record.end_reason.is_some() {
                    self.talks.end(&place)
                } else {
                    self.talks.tell(&place)
                };
                record.dns = told.map(Box::new);
            }
        }
    }

    fn name(&mut self, record: &mut Record) {
        let (source, destination) = (record.source.address, record.destination.address);
        let find = |address, peer| self.names.find(address, peer, record.first).cloned();
        let names = [find(source, destination), find(destination, source)];
        if names == [None, None] {
            return;
        }
        [record.source.identity.dns_name, record.destination.identity.dns_name] = names;
        if !self.settled.keep(record) {
            self.counts.lose(Loss::NamedFlowsFull);
        }
    }

    fn is_port(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    /// What there was since the start.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How much is known now.
    pub fn fill(&self) -> Fill {
        Fill { lookups: self.lookups.len(), names: self.names.len() }
    }
}

/// Says of a lookup that it got no response.
fn give_up(unanswered: &Unanswered, now: Monotonic, talks: &mut Talks, counts: &mut Counts) {
    counts.unanswered(unanswered.role);
    for place in &unanswered.places {
        if talks.unanswered(*place, &unanswered.question, now).is_err() {
            counts.lose(Loss::FlowsFull);
        }
    }
}

/// The key of a query with this tuple. The same query may pass one interface with a VLAN tag and another without.
fn key(query: Tuple, id: u16) -> Key {
    Key {
        client: SocketAddr::new(query.source(), query.source_port()),
        server: SocketAddr::new(query.destination(), query.destination_port()),
        protocol: query.protocol(),
        id,
    }
}
