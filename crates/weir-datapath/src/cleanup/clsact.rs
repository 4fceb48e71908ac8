//! Filters of clsact qdiscs, in the network namespace of the calling thread: lists them, deletes one, deletes an
//! empty qdisc.
//!
//! Only the attributes that we need are looked at, so an odd filter of somebody else's is listed like any other. What
//! to delete is the caller's decision; this module deletes exactly what it is told.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use weir_flow::Direction;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;
const TCA_INGRESS_BLOCK: u16 = 13;
const TCA_EGRESS_BLOCK: u16 = 14;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_TAG: u16 = 10;
const TCA_BPF_ID: u16 = 11;

/// Parent and handle of every clsact qdisc (`TC_H_CLSACT`, `TC_H_MAKE(TC_H_CLSACT, 0)`), shared with ingress qdiscs.
const CLSACT_PARENT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;

const MESSAGE_HEADER: usize = 16;
const TC_HEADER: usize = 20;
/// The kernel cuts lists into pieces of at most 32 KiB.
const BUFFER: usize = 64 << 10;
/// A list is torn when something changes meanwhile.
const ATTEMPTS: usize = 20;

/// A filter of a clsact qdisc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) ifindex: u32,
    pub(crate) direction: Direction,
    pub(crate) handle: u32,
    pub(crate) priority: u16,
    /// In network order, as the kernel has it.
    protocol: u16,
    pub(crate) chain: u32,
    /// Kind of classifier, such as `bpf`.
    pub(crate) kind: String,
    /// Name that the filter was given; empty for other kinds than `bpf`.
    pub(crate) name: String,
    /// Program of a `bpf` filter.
    pub(crate) program: Option<ProgramIdentity>,
}

/// A loaded program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProgramIdentity {
    pub(crate) id: u32,
    /// Digest of its instructions, read as a big-endian number.
    pub(crate) tag: u64,
}

/// A qdisc that filters of both directions hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ClsactQdisc {
    ifindex: u32,
    /// Whether its filters are shared with other interfaces, so that they are not listed here.
    has_shared_blocks: bool,
}

/// A conversation with the kernel.
pub(crate) struct Clsact {
    socket: Socket,
    sequence: u32,
}

impl Clsact {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Interfaces that have a clsact qdisc.
    pub(crate) fn interfaces(&mut self) -> io::Result<Vec<u32>> {
        Ok(self.qdiscs()?.into_iter().map(|qdisc| qdisc.ifindex).collect())
    }

    /// All filters of an interface and direction, in all chains, in the order in which packets meet them.
    pub(crate) fn filters(&mut self, ifindex: u32, direction: Direction) -> io::Result<Vec<Filter>> {
        let header = TcHeader { ifindex, handle: 0, parent: parent(direction), info: 0 };
        self.dump(RTM_GETTFILTER, RTM_NEWTFILTER, header, |message| parse_filter(message, direction))
    }

    /// Deletes a filter, by all that identifies it.
    pub(crate) fn delete_filter(&mut self, filter: &Filter) -> io::Result<()> {
        let header = TcHeader {
            ifindex: filter.ifindex,
            handle: filter.handle,
            parent: parent(filter.direction),
            info: u32::from(filter.priority) << 16 | u32::from(filter.protocol),
        };
        self.change(RTM_DELTFILTER, header, &attribute(TCA_KIND, b"bpf\0"))
    }

    /// Deletes the clsact qdisc of an interface if no filter is left in it. Says whether it did.
    ///
    /// The kernel has no such question, so a filter that somebody adds in the moment between goes with the qdisc.
    pub(crate) fn delete_empty_qdisc(&mut self, ifindex: u32) -> io::Result<bool> {
        let qdisc = self.qdiscs()?.into_iter().find(|qdisc| qdisc.ifindex == ifindex);
        if qdisc.is_none_or(|qdisc| qdisc.has_shared_blocks) {
            return Ok(false);
        }
        for direction in Direction::ALL {
            if !self.filters(ifindex, direction)?.is_empty() {
                return Ok(false);
            }
        }
        let header = TcHeader { ifindex, handle: CLSACT_HANDLE, parent: CLSACT_PARENT, info: 0 };
        self.change(RTM_DELQDISC, header, &[])?;
        Ok(true)
    }

    fn qdiscs(&mut self) -> io::Result<Vec<ClsactQdisc>> {
        let header = TcHeader { ifindex: 0, handle: 0, parent: 0, info: 0 };
        self.dump(RTM_GETQDISC, RTM_NEWQDISC, header, parse_qdisc)
    }

    /// Asks for a list until it is whole. An interface that is gone has an empty one.
    fn dump<T>(
        &mut self,
        ask: u16,
        answer: u16,
        header: TcHeader,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..ATTEMPTS {
            self.send(ask, NLM_F_DUMP, header, &[])?;
            let mut list = Vec::new();
            let mut is_torn = false;
            let end = self.receive(|message| {
                is_torn |= message.flags() & NLM_F_DUMP_INTR != 0;
                if message.message_type() == answer {
                    list.extend(parse(message.payload()));
                }
            });
            match end {
                Ok(()) if is_torn => {}
                Ok(()) => return Ok(list),
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "the list of filters changed during every attempt to read it",
        ))
    }

    fn change(&mut self, ask: u16, header: TcHeader, attributes: &[u8]) -> io::Result<()> {
        self.send(ask, NLM_F_ACK, header, attributes)?;
        self.receive(|_| ())
    }

    fn send(&mut self, kind: u16, flags: u16, header: TcHeader, attributes: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = MESSAGE_HEADER + TC_HEADER + attributes.len();
        let length = u32::try_from(length).map_err(|_too_long| io::ErrorKind::InvalidInput)?;
        let mut bytes = Vec::new();
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        // Port of the sender: the kernel fills it in. Family and padding: unspecified.
        bytes.extend([0; 8]);
        for word in [header.ifindex, header.handle, header.parent, header.info] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(attributes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Hands over messages until the kernel says that this was all, or what is wrong.
    fn receive(&mut self, mut take: impl FnMut(&NetlinkBuffer<&[u8]>)) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            let mut rest = buffer.as_slice();
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                let length = (message.length() as usize).next_multiple_of(4);
                if message.sequence_number() == self.sequence {
                    match message.message_type() {
                        NLMSG_ERROR | NLMSG_DONE => return outcome(message.payload()),
                        _ => take(&message),
                    }
                }
                rest = rest.get(length..).unwrap_or_default();
            }
        }
    }
}

/// `struct tcmsg` without its family.
#[derive(Clone, Copy, Debug)]
struct TcHeader {
    ifindex: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

impl TcHeader {
    fn parse(payload: &[u8]) -> Option<Self> {
        let words = payload.get(4..TC_HEADER)?;
        Some(Self {
            ifindex: word(words)?,
            handle: word(words.get(4..)?)?,
            parent: word(words.get(8..)?)?,
            info: word(words.get(12..)?)?,
        })
    }
}

/// What filters of a direction hang on (`TC_H_MIN_INGRESS`, `TC_H_MIN_EGRESS`).
const fn parent(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => 0xffff_fff2,
        Direction::Egress => 0xffff_fff3,
    }
}

/// Reads a filter; `None` for the entry that stands for a whole priority.
#[expect(clippy::cast_possible_truncation, reason = "priority and protocol are the halves of a word")]
fn parse_filter(payload: &[u8], direction: Direction) -> Option<Filter> {
    let header = TcHeader::parse(payload)?;
    if header.handle == 0 {
        return None;
    }
    let mut filter = Filter {
        ifindex: header.ifindex,
        direction,
        handle: header.handle,
        priority: (header.info >> 16) as u16,
        protocol: header.info as u16,
        chain: 0,
        kind: String::new(),
        name: String::new(),
        program: None,
    };
    let mut options = None;
    for attribute in NlasIterator::new(payload.get(TC_HEADER..)?).flatten() {
        match attribute.kind() {
            TCA_KIND => filter.kind = text(attribute.value()),
            TCA_CHAIN => filter.chain = word(attribute.value())?,
            TCA_OPTIONS => options = Some(attribute.value().to_vec()),
            _ => {}
        }
    }
    if let (Some(options), "bpf") = (options, filter.kind.as_str()) {
        let (mut id, mut tag) = (None, None);
        for attribute in NlasIterator::new(options.as_slice()).flatten() {
            let value = attribute.value();
            match attribute.kind() {
                TCA_BPF_NAME => filter.name = text(value),
                TCA_BPF_ID => id = word(value),
                TCA_BPF_TAG => tag = value.try_into().ok().map(u64::from_be_bytes),
                _ => {}
            }
        }
        filter.program = id.zip(tag).map(|(id, tag)| ProgramIdentity { id, tag });
    }
    Some(filter)
}

fn parse_qdisc(payload: &[u8]) -> Option<ClsactQdisc> {
    let header = TcHeader::parse(payload)?;
    let mut is_clsact = false;
    let mut has_shared_blocks = false;
    for attribute in NlasIterator::new(payload.get(TC_HEADER..)?).flatten() {
        match attribute.kind() {
            TCA_KIND => is_clsact = text(attribute.value()) == "clsact",
            TCA_INGRESS_BLOCK | TCA_EGRESS_BLOCK => has_shared_blocks = true,
            _ => {}
        }
    }
    is_clsact.then_some(ClsactQdisc { ifindex: header.ifindex, has_shared_blocks })
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    const HEADER: u16 = 4;
    let length = HEADER + u16::try_from(value.len()).expect("only short names are sent");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// 0, or a negative error number.
fn outcome(payload: &[u8]) -> io::Result<()> {
    match word(payload).map_or(0, u32::cast_signed) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

fn text(bytes: &[u8]) -> String {
    let length = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}
