use std::time::Duration;

use proptest::{collection, prelude::*};
use weir_datapath::dns::{Body, DnsPacket};
use weir_flow::{
    Counters, Detail, Direction, EndReason, Endpoint, Identity, Initiator, Monotonic, Outcome, Point,
    PointId, Quality, Record, Role, SocketOwner, Tuple, Wall,
};
use weir_packet::{Details, ipv4_words, protocol};

use super::*;

mod lookups;
mod names;

const SECOND: u64 = 1_000_000_000;
const CLIENT: [u8; 4] = [10, 0, 0, 1];
const OTHER_CLIENT: [u8; 4] = [10, 0, 0, 2];
const SERVER: [u8; 4] = [10, 0, 0, 53];
const WEB: [u8; 4] = [192, 0, 2, 80];
const PORT: u16 = 40_000;
/// An interface of a pod, and the way out.
const EDGE: (u32, Role) = (7, Role::PodEdge);
const UPLINK: (u32, Role) = (2, Role::Uplink);

fn at(seconds: f64) -> Monotonic {
    #[expect(clippy::cast_possible_truncation, reason = "times of tests are small")]
    Monotonic((1000 * SECOND).saturating_add_signed((seconds * 1e9) as i64))
}

fn tuple(protocol: u8, from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Tuple {
    let details = Details::new(false, protocol).with_ports(from.1, to.1);
    Tuple::new(ipv4_words(from.0), ipv4_words(to.0), details)
}

/// The name `a.b` on the wire.
fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// A question or its answer.
#[derive(Clone)]
struct Dialogue {
    client: [u8; 4],
    port: u16,
    protocol: u8,
    id: u16,
    name: &'static str,
    record_type: u8,
    vlan: Option<u16>,
}

const A: u8 = 1;
const CNAME: u8 = 5;

impl Default for Dialogue {
    fn default() -> Self {
        let name = "www.example.com";
        Self { client: CLIENT, port: PORT, protocol: protocol::UDP, id: 77, name, record_type: A, vlan: None }
    }
}

impl Dialogue {
    fn tuple(&self) -> Tuple {
        let tuple = tuple(self.protocol, (self.client, self.port), (SERVER, 53));
        let [a, b, c, d, details] = tuple.words();
        match self.vlan {
            None => tuple,
            Some(vlan) => Tuple::from_words([a, b, c, d, details | 1 << 52 | u64::from(vlan) << 40]),
        }
    }

    fn message(&self, flags: [u8; 2], answers: &[Vec<u8>]) -> Vec<u8> {
        let count = u8::try_from(answers.len()).unwrap();
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.extend([flags[0], flags[1], 0, 1, 0, count, 0, 0, 0, 0]);
        bytes.extend(wire(self.name));
        bytes.extend([0, self.record_type, 0, 1]);
        bytes.extend(answers.concat());
        bytes
    }

    fn ask(&self, observer: &mut Observer, (ifindex, role): (u32, Role), time: Monotonic) {
        let bytes = self.message([1, 0], &[]);
        let body = Body { bytes: &bytes, is_cut: false };
        observer.hear(&DnsPacket { time, tuple: self.tuple(), ifindex, role, body });
    }

    fn answer(
        &self,
        observer: &mut Observer,
        (ifindex, role): (u32, Role),
        (code, answers): (u8, &[Vec<u8>]),
        time: Monotonic,
    ) {
        let bytes = self.message([0x81, 0x80 | code], answers);
        let body = Body { bytes: &bytes, is_cut: false };
        observer.hear(&DnsPacket { time, tuple: self.tuple().reversed(), ifindex, role, body });
    }
}

fn resource(owner: &str, record_type: u8, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    [&wire(owner)[..], &[0, record_type, 0, 1], &ttl.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

fn address(owner: &str, ttl: u32, address: [u8; 4]) -> Vec<u8> {
    resource(owner, A, ttl, &address)
}

fn observer() -> Observer {
    Observer::new(vec![53])
}

/// A record of a flow that began at that time.
fn record(tuple: Tuple, ifindex: u32, began: Monotonic) -> Record {
    let end = |address, port| Endpoint {
        address,
        port,
        owner: SocketOwner::default(),
        process: None,
        identity: Identity::default(),
    };
    Record {
        tuple,
        source: end(tuple.source(), tuple.source_port()),
        destination: end(tuple.destination(), tuple.destination_port()),
        point: std::sync::Arc::new(Point {
            id: PointId(3),
            netns: None,
            ifindex,
            interface: "eth0".into(),
            direction: Direction::Egress,
            role: Role::Uplink,
        }),
        delta: Counters::default(),
        total: Counters::default(),
        start: Wall::default(),
        end: Wall::default(),
        first: began,
        last: began,
        initiator: Initiator::Proven,
        end_reason: None,
        detail: Detail::Flow,
        outcome: Outcome::default(),
        quality: Quality::default(),
        dns: None,
    }
}

fn completed(observer: &mut Observer, record: Record) -> Record {
    let mut records = [record];
    observer.complete(&mut records);
    let [record] = records;
    record
}

fn lost(observer: &Observer) -> Vec<(&'static str, u64)> {
    let all = Loss::ALL.map(|loss| (loss.as_str(), observer.counts().lost[loss as usize]));
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn losses_and_roles_are_numbered_as_they_are_listed() {
    for (index, loss) in Loss::ALL.into_iter().enumerate() {
        assert_eq!(loss as usize, index);
    }
    for (index, role) in Role::ALL.into_iter().enumerate() {
        assert_eq!(role as usize, index);
    }
}

#[test]
fn what_is_no_query_and_no_response_is_counted_by_what_it_is() {
    let query = Dialogue::default().message([1, 0], &[]);
    let update = [&query[..2], &[5 << 3], &query[3..]].concat();
    for (bytes, is_cut, expect) in [
        (&b"short"[..], false, Loss::Malformed),
        (b"short", true, Loss::Partial),
        (&query[..20], false, Loss::Malformed),
        (&query[..20], true, Loss::Partial),
        (&update, false, Loss::OtherOperation),
        (&update, true, Loss::Partial),
    ] {
        let mut observer = observer();
        let body = Body { bytes, is_cut };
        let tuple = Dialogue::default().tuple();
        observer.hear(&DnsPacket { time: at(0.0), tuple, ifindex: 7, role: Role::PodEdge, body });
        assert_eq!(lost(&observer), [(expect.as_str(), 1)], "{bytes:?}");
        assert_eq!((observer.counts().messages, observer.counts().cut), (1, u64::from(is_cut)));
        assert_eq!(observer.fill(), Fill::default());
    }
}

/// Something that happens: a message of one of some dialogues at one of two interfaces, or time that goes by.
#[derive(Clone, Debug)]
enum Event {
    Ask(u16, bool),
    Answer(u16, bool, u8),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..6u16, any::<bool>()).prop_map(|(id, edge)| Event::Ask(id, edge)),
        (0..6u16, any::<bool>(), 0..4u8).prop_map(|(id, edge, code)| Event::Answer(id, edge, code)),
        (1..4_000u64).prop_map(Event::Wait),
    ]
}

proptest! {
    #[test]
    fn every_message_is_told_once_and_every_lookup_ends_once(events in collection::vec(event(), 0..60)) {
        let mut observer = observer();
        let (mut now, mut asked, mut told) = (at(0.0), 0, weir_flow::Dns::default());
        // Two numbers ask the same question, so that ports and numbers decide.
        let dialogue = |id: u16| Dialogue { id: id % 3, port: PORT + id / 3, ..Dialogue::default() };
        let place = |is_edge| if is_edge { EDGE } else { UPLINK };
        let tell = |observer: &mut Observer, now, told: &mut weir_flow::Dns| {
            for id in [0, 3] {
                for (ifindex, _) in [EDGE, UPLINK] {
                    let tuple = dialogue(id).tuple();
                    if let Some(dns) = completed(observer, record(tuple, ifindex, now)).dns {
                        told.queries += dns.queries;
                        told.responses += dns.responses;
                        told.failures += dns.failures;
                        told.unanswered += dns.unanswered;
                    }
                }
            }
        };
        for event in events {
            match event {
                Event::Ask(id, is_edge) => {
                    dialogue(id).ask(&mut observer, place(is_edge), now);
                    asked += 1;
                }
                Event::Answer(id, is_edge, code) => {
                    dialogue(id).answer(&mut observer, place(is_edge), (code, &[]), now);
                }
                Event::Wait(milliseconds) => {
                    now.0 += milliseconds * 1_000_000;
                    observer.expire(now);
                    tell(&mut observer, now, &mut told);
                }
            }
        }
        now.0 += 20 * SECOND;
        observer.expire(now);
        tell(&mut observer, now, &mut told);
        prop_assert_eq!(observer.fill().lookups, 0);
        prop_assert_eq!(told.queries, asked);
        let counts = observer.counts();
        let unasked = counts.lost[Loss::Unasked as usize];
        prop_assert_eq!(counts.messages, u64::from(told.queries + told.responses) + unasked);
        let answered: u64 = counts.roles.iter().map(RoleCounts::all_answered).sum();
        let unanswered: u64 = counts.roles.iter().map(|role| role.unanswered).sum();
        prop_assert!(answered + unanswered <= u64::from(asked));
        prop_assert!(unanswered <= u64::from(told.unanswered));
        prop_assert!(told.failures <= told.responses);
        prop_assert!(answered <= u64::from(told.responses));
    }

    #[test]
    fn no_message_makes_it_panic(
        messages in collection::vec((collection::vec(any::<u8>(), 0..80), any::<[bool; 3]>()), 0..20),
    ) {
        let mut observer = observer();
        for (mut bytes, [is_cut, is_response, is_plausible]) in messages {
            if is_plausible && bytes.len() >= 12 {
                bytes[..6].copy_from_slice(&[0, 77, u8::from(is_response) << 7, 0, 0, 1]);
            }
            let tuple = Dialogue::default().tuple();
            let tuple = if is_response { tuple.reversed() } else { tuple };
            let body = Body { bytes: &bytes, is_cut };
            observer.hear(&DnsPacket { time: at(0.0), tuple, ifindex: 7, role: Role::PodEdge, body });
        }
        observer.expire(at(60.0));
        completed(&mut observer, record(Dialogue::default().tuple(), 7, at(0.0)));
    }
}
