//! Notices interfaces that appear, change and vanish.
//!
//! The kernel's messages are applied to what is known, and what is known is compared before and after: several changes
//! between two calls come out as one. Where messages were lost for lack of room, a fresh list takes their place, so an
//! interface may be reported late but is never missed. Counters alone are no change.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use netlink_sys::Socket;

use super::{
    Interface, Malformed, NetlinkError,
    message::{self, RTM_DELADDR, RTM_DELLINK, RTM_DELROUTE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE},
    rtnetlink::{self, BUFFER, Received, Rtnetlink},
};
use crate::netns::Netns;

/// Links, and what the role of a pair's end depends on.
const GROUPS: [u32; 5] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
];
/// Room for messages that nobody has read yet, in bytes; the kernel gives no more than `net.core.rmem_max`.
const ROOM: libc::c_int = 1024 * 1024;
/// Datagrams read in one call, so that a storm cannot hold up the caller. The rest keeps the descriptor readable.
const DATAGRAMS_A_CALL: usize = 10_000;
const WHAT: &str = "changes of interfaces";

/// Something that happened to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It appeared. One that is made again under an old name has a new index: it comes after the end of the old one.
    New(Interface),
    /// It has another name now; other things may have changed too.
    Renamed {
        /// As it is now.
        interface: Interface,
        /// Its name before.
        old_name: Arc<str>,
    },
    /// Anything but its name and counters changed.
    Changed(Interface),
    /// It is gone, or moved to another namespace.
    Removed {
        /// Index that it had.
        index: u32,
        /// Name that it had.
        name: Arc<str>,
    },
}

/// A subscription to the changes of one namespace.
#[derive(Debug)]
pub struct Watcher {
    messages: Socket,
    questions: Rtnetlink,
    buffer: Vec<u8>,
    /// What the caller was told.
    reported: BTreeMap<u32, Interface>,
    /// What is known.
    current: BTreeMap<u32, Interface>,
    pending: Pending,
    overruns: u64,
}

/// What messages said that is not worked off yet.
#[derive(Debug, Default)]
struct Pending {
    /// Messages were lost: a list must be read afresh.
    list: bool,
    /// Something came that roles depend on.
    roles: bool,
    /// Indexes that ended: whoever has them now is somebody else.
    ended: BTreeSet<u32>,
}

impl Watcher {
    /// Subscribes, then reads what is there; nothing falls between the two.
    pub fn open(netns: &Netns) -> Result<Self, NetlinkError> {
        let mut messages = rtnetlink::open(netns)?;
        subscribe(&mut messages).map_err(|source| NetlinkError::Socket { source })?;
        let mut questions = Rtnetlink::open(netns)?;
        let current = by_index(questions.interfaces()?);
        Ok(Self {
            messages,
            questions,
            buffer: Vec::with_capacity(BUFFER),
            reported: current.clone(),
            current,
            pending: Pending::default(),
            overruns: 0,
        })
    }

    /// What has been reported up to now, in the order of the index; at first, what was there. Counters are as old as the
    /// last message about the interface.
    pub fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.reported.values()
    }

    /// How often messages were lost and the list was read afresh.
    pub const fn overruns(&self) -> u64 {
        self.overruns
    }

    /// What happened since the last call, ends first. Never waits: poll the descriptor for that. After an error call
    /// again: then the list is read afresh.
    pub fn next_events(&mut self) -> Result<Vec<LinkEvent>, NetlinkError> {
        let updated = self.read().and_then(|()| self.update());
        self.pending.list |= updated.is_err();
        updated?;
        let events = difference(&self.reported, &self.current, &self.pending.ended);
        self.reported.clone_from(&self.current);
        self.pending = Pending::default();
        Ok(events)
    }

    /// Applies the messages that wait.
    fn read(&mut self) -> Result<(), NetlinkError> {
        for _ in 0..DATAGRAMS_A_CALL {
            match rtnetlink::receive(&self.messages, &mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(Received::Whole) => {}
                Ok(Received::Truncated) => {
                    self.lost_messages();
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.lost_messages();
                    continue;
                }
                Err(source) => return Err(NetlinkError::Receive { what: WHAT, source }),
            }
            for message in rtnetlink::messages(&self.buffer) {
                let applied = message.and_then(|message| {
                    apply(message.message_type(), message.payload(), &mut self.current, &mut self.pending)
                });
                applied.map_err(|source| NetlinkError::Malformed { what: WHAT, source })?;
            }
        }
        Ok(())
    }

    /// Brings what the messages left open up to date.
    fn update(&mut self) -> Result<(), NetlinkError> {
        if self.pending.list {
            self.current = by_index(self.questions.interfaces()?);
        } else if self.pending.roles {
            self.questions.assign_roles(self.current.values_mut())?;
        }
        Ok(())
    }

    const fn lost_messages(&mut self) {
        self.pending.list = true;
        self.overruns += 1;
    }
}

impl AsFd for Watcher {
    /// Readable when there may be events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.messages.as_fd()
    }
}

fn subscribe(socket: &mut Socket) -> io::Result<()> {
    socket.set_rx_buf_sz(ROOM)?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    Ok(())
}

fn apply(
    kind: u16,
    payload: &[u8],
    interfaces: &mut BTreeMap<u32, Interface>,
    pending: &mut Pending,
) -> Result<(), Malformed> {
    match kind {
        RTM_NEWLINK => {
            if let Some(interface) = message::link(payload)? {
                pending.roles = true;
                interfaces.insert(interface.index, interface);
            }
        }
        RTM_DELLINK => {
            if let Some(index) = message::removed_link(payload)? {
                pending.roles = true;
                pending.ended.insert(index);
                interfaces.remove(&index);
            }
        }
        RTM_NEWADDR | RTM_DELADDR => pending.roles = true,
        RTM_NEWROUTE | RTM_DELROUTE => pending.roles |= message::is_default_route(payload),
        _ => {}
    }
    Ok(())
}

/// How one state became another.
fn difference(
    before: &BTreeMap<u32, Interface>,
    after: &BTreeMap<u32, Interface>,
    ended: &BTreeSet<u32>,
) -> Vec<LinkEvent> {
    // The same index may be somebody else's: either its end was seen, or both its name and its kind are new.
    let is_same = |old: &Interface, new: &Interface| {
        !ended.contains(&old.index) && (old.name == new.name || old.kind == new.kind)
    };
    let removed = before.values().filter(|old| after.get(&old.index).is_none_or(|new| !is_same(old, new)));
    let removed = removed.map(|old| LinkEvent::Removed { index: old.index, name: Arc::clone(&old.name) });
    let present = after.values().filter_map(|new| {
        let Some(old) = before.get(&new.index).filter(|old| is_same(old, new)) else {
            return Some(LinkEvent::New(new.clone()));
        };
        if old.name != new.name {
            let old_name = Arc::clone(&old.name);
            return Some(LinkEvent::Renamed { interface: new.clone(), old_name });
        }
        let counters_aside = Interface { stats: old.stats, ..new.clone() };
        (counters_aside != *old).then(|| LinkEvent::Changed(new.clone()))
    });
    removed.chain(present).collect()
}

fn by_index(interfaces: Vec<Interface>) -> BTreeMap<u32, Interface> {
    interfaces.into_iter().map(|interface| (interface.index, interface)).collect()
}
