//! Removing what is ours, and nothing else.
//!
//! Ours are the links that are pinned under the root, filters with our handle and our programs' names on the interfaces
//! that are written down, and the pins. A clsact qdisc goes only if it was added for us and is empty.

use std::{
    fmt, fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::maps::{HashMap, Map, MapData};
use weir_common::redirect::{HOOK_CLSACT, PlaceValue};
use weir_flow::Direction;

use super::{
    attach::{direction, filters, leaves_no_qdisc, pinned_link, place_name, place_role, remove_filters},
    elsewhere::{self, Places},
    error::RedirectError,
    local,
    maps::failed,
    pins::{Pins, unlink},
};
use crate::{bpf, netns::Netns};

/// Something that [`Redirect::teardown`](super::Redirect::teardown) removed, or would.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Removed {
    /// A program of an interface.
    Program {
        /// The interface; its index if it is gone.
        interface: String,
        /// `ingress` or `egress`.
        direction: &'static str,
        /// `tcx` or `clsact`.
        hook: &'static str,
    },
    /// A clsact qdisc that was added for the programs and is empty.
    Qdisc {
        /// The interface.
        interface: String,
    },
    /// A program of a cgroup.
    CgroupProgram {
        /// Its name.
        name: String,
    },
    /// A pin.
    Pin {
        /// The file or directory.
        path: PathBuf,
    },
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program { interface, direction, hook } => {
                write!(f, "program on {interface} {direction} ({hook})")
            }
            Self::Qdisc { interface } => write!(f, "empty clsact qdisc of {interface}"),
            Self::CgroupProgram { name } => write!(f, "cgroup program {name}"),
            Self::Pin { path } => write!(f, "{}", path.display()),
        }
    }
}

/// Takes the programs off an interface: first what sends connections elsewhere. Filters are looked for whatever is
/// written down, because a process may have ended before it wrote.
pub(super) fn detach(pins: &Pins, index: u32, value: &PlaceValue) -> Result<(), RedirectError> {
    for is_forward in [true, false] {
        remove_link(pins, index, is_forward)?;
    }
    remove_filters(index, value).map(drop)
}

/// Whether both programs are on an interface.
pub(super) fn is_attached(pins: &Pins, index: u32, value: &PlaceValue) -> bool {
    [true, false].into_iter().all(|is_forward| {
        if value.hook == HOOK_CLSACT {
            let direction = direction(place_role(value), is_forward);
            return filters(index, value, direction).is_ok_and(|filters| !filters.is_empty());
        }
        pinned_link(&pins.link(index, is_forward))
            .ok()
            .flatten()
            .is_some_and(|link| bpf::tcx_interface(link.as_fd()).is_ok_and(|there| there == index))
    })
}

/// Detaches a link, whoever holds it, and removes its pin.
fn remove_link(pins: &Pins, index: u32, is_forward: bool) -> Result<bool, RedirectError> {
    let pin = pins.link(index, is_forward);
    remove_pinned(&pin)
}

/// The same of any link. Says whether there was one.
pub(super) fn remove_pinned(pin: &Path) -> Result<bool, RedirectError> {
    let Some(link) = pinned_link(pin)? else { return Ok(false) };
    match bpf::detach_link(link.as_fd()) {
        // What it was attached to is gone.
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOLINK | libc::ENODEV | libc::ENOENT)) => {
            return Err(RedirectError::Pin {
                path: pin.to_owned(),
                remedy: "the link cannot be detached",
                source: error,
            });
        }
        _ => {}
    }
    unlink(pin)?;
    Ok(true)
}

/// Removes everything under the root, of any layout.
pub(super) fn teardown(pins: &Pins, dry_run: bool) -> Result<Vec<Removed>, RedirectError> {
    let mut removed = Vec::new();
    if !pins.root.exists() {
        return Ok(removed);
    }
    let _lock = if dry_run { None } else { Some(pins.lock()?) };
    let here = Netns::current()?.identity().inode;
    let mut layouts = Vec::new();
    for layout in std::iter::once(pins.clone()).chain(pins.others()) {
        let places = places(&layout)?;
        elsewhere::refuse_what_is_out_of_reach(&layout, &places, here)?;
        layouts.push((layout, places));
    }
    for (layout, places) in &layouts {
        remove_layout(layout, places, here, dry_run, &mut removed)?;
    }
    // The root goes if nothing else is in it.
    let is_empty = fs::read_dir(&pins.root).is_ok_and(|mut entries| entries.next().is_none());
    if !dry_run && is_empty && fs::remove_dir(&pins.root).is_ok() {
        removed.push(Removed::Pin { path: pins.root.clone() });
        // Ours by its name, and empty or the kernel refuses.
        let above = pins.root.parent().filter(|above| above.ends_with("weir"));
        if let Some(above) = above.filter(|above| fs::remove_dir(above).is_ok()) {
            removed.push(Removed::Pin { path: above.to_owned() });
        }
    }
    Ok(removed)
}

/// Removes what is of one layout, whichever that is.
pub(super) fn remove_layout(
    pins: &Pins,
    places: &Places,
    here: u64,
    dry_run: bool,
    removed: &mut Vec<Removed>,
) -> Result<(), RedirectError> {
    local::teardown(pins, dry_run, removed)?;
    for (index, value) in places {
        remove_place(pins, *index, value, value.netns == here, dry_run, removed)?;
    }
    remove_stray_links(pins, dry_run, removed)?;
    remove_tree(&pins.version, dry_run, removed)
}

fn remove_place(
    pins: &Pins,
    index: u32,
    value: &PlaceValue,
    is_here: bool,
    dry_run: bool,
    removed: &mut Vec<Removed>,
) -> Result<(), RedirectError> {
    let interface = place_name(value);
    for is_forward in [true, false] {
        let direction = direction(place_role(value), is_forward);
        let is_tcx = pins.link(index, is_forward).exists();
        let is_filter = is_here && !filters(index, value, direction)?.is_empty();
        for (is_there, hook) in [(is_tcx, "tcx"), (is_filter, "clsact")] {
            if is_there {
                removed.push(Removed::Program {
                    interface: interface.clone(),
                    direction: named(direction),
                    hook,
                });
            }
        }
        if is_tcx {
            removed.push(Removed::Pin { path: pins.link(index, is_forward) });
            if !dry_run {
                remove_link(pins, index, is_forward)?;
            }
        }
    }
    let is_gone = match (is_here, dry_run) {
        (false, _) => false,
        (true, true) => leaves_no_qdisc(index, value)?,
        (true, false) => remove_filters(index, value)?,
    };
    if is_gone {
        removed.push(Removed::Qdisc { interface });
    }
    Ok(())
}

/// Links that no place tells of: a process ended between the two, or they are what another layout has besides.
fn remove_stray_links(pins: &Pins, dry_run: bool, removed: &mut Vec<Removed>) -> Result<(), RedirectError> {
    if dry_run {
        return Ok(());
    }
    for link in pins.all_links() {
        if remove_pinned(&link)? {
            removed.push(Removed::Pin { path: link });
        }
    }
    Ok(())
}

/// Removes a directory of pins.
fn remove_tree(path: &Path, dry_run: bool, removed: &mut Vec<Removed>) -> Result<(), RedirectError> {
    let failed =
        |source| RedirectError::Pin { path: path.to_owned(), remedy: "it cannot be removed", source };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            remove_tree(&entry.path(), dry_run, removed)?;
            continue;
        }
        let pin = Removed::Pin { path: entry.path() };
        if !dry_run {
            unlink(&entry.path())?;
        }
        if !removed.contains(&pin) {
            removed.push(pin);
        }
    }
    if !dry_run {
        fs::remove_dir(path).map_err(failed)?;
    }
    removed.push(Removed::Pin { path: path.to_owned() });
    Ok(())
}

/// The interfaces that are written down.
pub(super) fn places(pins: &Pins) -> Result<Places, RedirectError> {
    let path = pins.maps.join("PLACES");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let data = MapData::from_pin(path).and_then(Map::from_map_data).map_err(failed("PLACES"))?;
    let map: HashMap<MapData, u32, [u64; 4]> = data.try_into().map_err(failed("PLACES"))?;
    let mut places = Vec::new();
    for entry in &map {
        let (index, words) = entry.map_err(failed("PLACES"))?;
        places.push((index, zerocopy::transmute!(words)));
    }
    Ok(places)
}

const fn named(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}
