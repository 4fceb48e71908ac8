//! Putting the programs on interfaces so that they stay, and taking them off.
//!
//! By TCX the programs are links, pinned by the index of the interface; where one is pinned already its program is
//! replaced at once. By clsact they are filters with a handle of our own. What sees answers is attached before what sends
//! connections elsewhere, and detached after it.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::FdLink,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
    },
};
use weir_common::redirect::{HOOK_CLSACT, HOOK_TCX, PLACE_CLIENT, PLACE_UPLINK, PlaceValue};
use weir_flow::Direction;
use weir_packet::Link;

use super::{
    error::RedirectError,
    pins::{Pins, unlink},
    place::{PlaceHook, Role},
};
use crate::{
    bpf,
    cleanup::clsact::{Clsact, Filter},
};

/// Handle of the filters: the letters PX, which neither the kernel nor `weir agent` gives to one.
const HANDLE: u32 = 0x5058_0001;

/// Priority of the filters, or the next one that no filter of another kind has.
const PRIORITY: u16 = 49;
const LAST_PRIORITY: u16 = 64;

/// The programs of interfaces. All are loaded before anything is attached.
pub(super) const PROGRAMS: [&str; 6] = [
    "weir_uplink_l2",
    "weir_uplink_l3",
    "weir_client_l2",
    "weir_client_l3",
    "weir_answer_l2",
    "weir_answer_l3",
];

/// An interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) link: Link,
    /// Whether frames for others are handed on to a device that it is part of, or that is on top of it.
    pub(super) is_shared: bool,
}

/// The program for packets of clients, or for answers.
fn program(role: Role, link: Link, is_forward: bool) -> &'static str {
    let [uplink_l2, uplink_l3, client_l2, client_l3, answer_l2, answer_l3] = PROGRAMS;
    match (is_forward, role, link) {
        (true, Role::Uplink, Link::Ethernet) => uplink_l2,
        (true, Role::Uplink, Link::Ip) => uplink_l3,
        (true, Role::Client, Link::Ethernet) => client_l2,
        (true, Role::Client, Link::Ip) => client_l3,
        (false, _, Link::Ethernet) => answer_l2,
        (false, _, Link::Ip) => answer_l3,
    }
}

/// Where it is attached.
pub(super) fn direction(role: Role, is_forward: bool) -> Direction {
    match (role, is_forward) {
        (Role::Uplink, true) | (Role::Client, false) => Direction::Egress,
        (Role::Uplink, false) | (Role::Client, true) => Direction::Ingress,
    }
}

fn attach_type(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    }
}

/// What is written down about a place.
pub(super) fn place_value(device: &Device, role: Role, netns: u64) -> PlaceValue {
    let mut name = [0; 16];
    for (to, from) in name[..15].iter_mut().zip(device.name.bytes()) {
        *to = from;
    }
    PlaceValue {
        name,
        netns,
        role: if role == Role::Uplink { PLACE_UPLINK } else { PLACE_CLIENT },
        hook: HOOK_TCX,
        is_shared: u8::from(device.is_shared),
        added_qdisc: 0,
        priorities: [0; 2],
    }
}

/// Name of the interface of a place.
pub(super) fn place_name(value: &PlaceValue) -> String {
    let length = value.name.iter().position(|byte| *byte == 0).unwrap_or(value.name.len());
    String::from_utf8_lossy(&value.name[..length]).into_owned()
}

/// Role of a place.
pub(super) fn place_role(value: &PlaceValue) -> Role {
    if value.role == PLACE_CLIENT { Role::Client } else { Role::Uplink }
}

/// Hook of a place.
pub(super) fn place_hook(value: &PlaceValue) -> PlaceHook {
    if value.hook == HOOK_CLSACT { PlaceHook::Clsact } else { PlaceHook::Tcx }
}

/// Attaches one program, or replaces the one that is there. Says whether one was; `place` learns how it is attached.
/// `record` writes that down before anything is changed that would not be found otherwise.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    pins: &Pins,
    device: &Device,
    place: &mut PlaceValue,
    is_forward: bool,
    record: &mut dyn FnMut(&PlaceValue) -> Result<(), RedirectError>,
) -> Result<bool, RedirectError> {
    let role = place_role(place);
    let failed = |source| RedirectError::Attach { interface: device.name.clone(), source };
    let program: &mut SchedClassifier = ebpf
        .program_mut(program(role, device.link, is_forward))
        .ok_or(ProgramError::NotLoaded)
        .and_then(TryInto::try_into)
        .map_err(failed)?;
    if place.hook == HOOK_TCX {
        match attach_tcx(program, pins, device, role, is_forward) {
            // A kernel before 6.6 does not know the attach type.
            Err(RedirectError::Attach { source, .. }) if is_unsupported(&source) => place.hook = HOOK_CLSACT,
            outcome => return outcome,
        }
    }
    attach_clsact(program, device, place, is_forward, record)
}

fn attach_tcx(
    program: &mut SchedClassifier,
    pins: &Pins,
    device: &Device,
    role: Role,
    is_forward: bool,
) -> Result<bool, RedirectError> {
    let pin = pins.link(device.index, is_forward);
    let failed = |source| RedirectError::Attach { interface: device.name.clone(), source };
    if let Some(link) = pinned_link(&pin)? {
        let program = program.fd().map_err(failed)?;
        match bpf::update_link(link.as_fd(), program.as_fd()) {
            Ok(()) => return Ok(true),
            // The interface is gone, and another one may have its number.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => unlink(&pin)?,
            // What is attached goes on as it is: taking it off would leave its connections to nobody.
            Err(source) => {
                let remedy = "its program cannot be replaced; `weir proxy teardown` removes it";
                return Err(RedirectError::Pin { path: pin, remedy, source });
            }
        }
    }
    // A counter of flows shall see what the client sees: before its packets are redirected, and after the answers are
    // turned back.
    let order = if is_forward { LinkOrder::last() } else { LinkOrder::first() };
    let attach_type = attach_type(direction(role, is_forward));
    let id = program
        .attach_with_options(&device.name, attach_type, TcAttachOptions::TcxOrder(order))
        .map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    let pinned = FdLink::try_from(link)
        .map_err(io::Error::other)
        .and_then(|link| link.pin(&pin).map_err(io::Error::other));
    pinned.map_err(|source| RedirectError::Pin { path: pin, remedy: "the link cannot be pinned", source })?;
    Ok(false)
}

fn attach_clsact(
    program: &mut SchedClassifier,
    device: &Device,
    place: &mut PlaceValue,
    is_forward: bool,
    record: &mut dyn FnMut(&PlaceValue) -> Result<(), RedirectError>,
) -> Result<bool, RedirectError> {
    let failed = |source| RedirectError::Attach { interface: device.name.clone(), source };
    let role = place_role(place);
    let direction = direction(role, is_forward);
    let side = side(direction);
    if let Some(there) = filters(device.index, place, direction)?.first() {
        let attach_type = attach_type(direction);
        let link = SchedClassifierLink::attached(
            &device.name,
            attach_type,
            there.priority,
            TcHandle::from(HANDLE),
            None,
        )
        .map_err(|error| failed(ProgramError::IOError(error)))?;
        let id = program.attach_to_link(link).map_err(failed)?;
        // Links of this kind detach when they are dropped; this one stays.
        std::mem::forget(program.take_link(id).map_err(failed)?);
        return Ok(true);
    }
    let with_qdisc = Clsact::open().and_then(|mut clsact| clsact.interfaces());
    let with_qdisc =
        with_qdisc.map_err(|source| RedirectError::Filters { interface: device.name.clone(), source })?;
    if !with_qdisc.contains(&device.index) {
        place.added_qdisc = 1;
    }
    record(place)?;
    if !with_qdisc.contains(&device.index) {
        match qdisc_add_clsact(&device.name) {
            // Somebody else was faster.
            Err(error) if errno(&error) == Some(libc::EEXIST) => {
                place.added_qdisc = 0;
                record(place)?;
            }
            outcome => outcome.map_err(|source| failed(source.into()))?,
        }
    }
    let taken: Vec<u16> =
        filters_of_all(device.index, place, direction)?.iter().map(|filter| filter.priority).collect();
    for priority in (PRIORITY..=LAST_PRIORITY).filter(|priority| !taken.contains(priority)) {
        // Before it is there, so that it is known for ours wherever we end.
        place.priorities[side] = priority;
        record(place)?;
        let options = NlOptions { priority, handle: TcHandle::from(HANDLE), classid: None };
        match program.attach_with_options(
            &device.name,
            attach_type(direction),
            TcAttachOptions::Netlink(options),
        ) {
            Ok(id) => {
                std::mem::forget(program.take_link(id).map_err(failed)?);
                return Ok(false);
            }
            Err(ProgramError::TcError(error))
                if matches!(errno(&error), Some(libc::EEXIST | libc::EINVAL | libc::ENOENT))
                    && priority < LAST_PRIORITY => {}
            Err(source) => return Err(failed(source)),
        }
    }
    let reason = format!("all priorities from {PRIORITY} to {LAST_PRIORITY} are taken by other roots");
    Err(failed(ProgramError::IOError(io::Error::new(io::ErrorKind::AddrInUse, reason))))
}

/// Where the priority of filters of a direction is written down.
fn side(direction: Direction) -> usize {
    usize::from(direction == Direction::Egress)
}

/// The filters of a place in one direction: those of the priority that is written down, which is done before one is added.
/// Other ones are of another root.
pub(super) fn filters(
    ifindex: u32,
    place: &PlaceValue,
    direction: Direction,
) -> Result<Vec<Filter>, RedirectError> {
    let mut list = filters_of_all(ifindex, place, direction)?;
    list.retain(|filter| filter.priority == place.priorities[side(direction)]);
    Ok(list)
}

/// The filters of every root on the interface of a place: with our handle and our programs' names.
fn filters_of_all(
    ifindex: u32,
    place: &PlaceValue,
    direction: Direction,
) -> Result<Vec<Filter>, RedirectError> {
    let list = Clsact::open().and_then(|mut clsact| clsact.filters(ifindex, direction));
    let mut list = list.map_err(|source| RedirectError::Filters { interface: place_name(place), source })?;
    list.retain(|filter| {
        filter.handle == HANDLE
            && PROGRAMS.iter().any(|program| program.starts_with(&filter.name) && !filter.name.is_empty())
    });
    Ok(list)
}

/// Whether a place has filters, in the network namespace of the calling thread.
pub(super) fn has_filters(ifindex: u32, place: &PlaceValue) -> Result<bool, RedirectError> {
    for direction in Direction::ALL {
        if !filters(ifindex, place, direction)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether nothing would be left of the clsact qdisc that was added for the filters of a place.
pub(super) fn leaves_no_qdisc(ifindex: u32, place: &PlaceValue) -> Result<bool, RedirectError> {
    let failed = |source| RedirectError::Filters { interface: place_name(place), source };
    let mut clsact = Clsact::open().map_err(failed)?;
    let is_there = clsact.interfaces().map_err(failed)?.contains(&ifindex);
    let mut is_ours = place.added_qdisc != 0 && is_there;
    for direction in Direction::ALL {
        let all = clsact.filters(ifindex, direction).map_err(failed)?;
        is_ours &= all.len() == filters(ifindex, place, direction)?.len();
    }
    Ok(is_ours)
}

/// Takes the filters of a place off, and the clsact qdisc if it was added for them and is empty. Says what it did.
pub(super) fn remove_filters(ifindex: u32, place: &PlaceValue) -> Result<bool, RedirectError> {
    let failed = |source| RedirectError::Filters { interface: place_name(place), source };
    let mut clsact = Clsact::open().map_err(failed)?;
    for direction in Direction::ALL {
        for filter in filters(ifindex, place, direction)? {
            clsact.delete_filter(&filter).map_err(failed)?;
        }
    }
    if place.added_qdisc != 0 { clsact.delete_empty_qdisc(ifindex).map_err(failed) } else { Ok(false) }
}

/// A pinned link, if there is one.
pub(super) fn pinned_link(pin: &Path) -> Result<Option<OwnedFd>, RedirectError> {
    match bpf::open_pinned(pin) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => {
            Err(RedirectError::Pin { path: pin.to_owned(), remedy: "the link cannot be read", source })
        }
    }
}

fn is_unsupported(error: &ProgramError) -> bool {
    let number = match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::TcError(error) => errno(error),
        _ => None,
    };
    matches!(number, Some(libc::EINVAL | libc::EOPNOTSUPP))
}

fn errno(error: &TcError) -> Option<i32> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error(),
        TcError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}
