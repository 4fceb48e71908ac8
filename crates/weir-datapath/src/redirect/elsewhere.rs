//! What a [`Redirect`](super::Redirect) of another network namespace, or of a build with other layouts, has left behind.
//!
//! Every layout writes its interfaces down in the same form. Filters of clsact can be seen only from their own network
//! namespace, which is entered to look, if any path leads there. What is at work and cannot be taken off from here is not
//! touched.

use std::{
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use weir_common::redirect::{HOOK_CLSACT, PlaceValue};

use super::{
    attach::{has_filters, pinned_link, place_name},
    error::RedirectError,
    pins::Pins,
    teardown,
};
use crate::{bpf, netns::Netns};

/// Interfaces that are written down, by their index.
pub(super) type Places = Vec<(u32, PlaceValue)>;

/// Whether any program of a place of another network namespace is still at work.
pub(super) fn is_place_at_work(pins: &Pins, index: u32, value: &PlaceValue) -> bool {
    [true, false].into_iter().any(|is_forward| is_link_at_work(&pins.link(index, is_forward)))
        || has_filters_elsewhere(index, value)
}

/// Fails if one of these places has filters in another network namespace, which would be forgotten.
pub(super) fn refuse_what_is_out_of_reach(
    pins: &Pins,
    places: &Places,
    here: u64,
) -> Result<(), RedirectError> {
    let strangers = places.iter().filter(|(_, value)| value.netns != here);
    match strangers.into_iter().find(|(index, value)| has_filters_elsewhere(*index, value)) {
        Some((_, value)) => {
            Err(RedirectError::OtherNamespace { path: pins.root.clone(), interface: place_name(value) })
        }
        None => Ok(()),
    }
}

/// What other layouts have pinned that is not at work; fails if any is.
pub(super) fn other_layouts(pins: &Pins, here: u64) -> Result<Vec<(Pins, Places)>, RedirectError> {
    let mut layouts = Vec::new();
    for other in pins.others() {
        let places = teardown::places(&other)?;
        refuse_what_is_out_of_reach(&other, &places, here)?;
        let mut of_here = places.iter().filter(|(_, value)| value.netns == here);
        let is_at_work = other.all_links().iter().any(|link| is_link_at_work(link))
            || of_here.any(|(index, value)| has_filters(*index, value).unwrap_or(true));
        if is_at_work {
            return Err(RedirectError::OtherLayout { path: other.version });
        }
        layouts.push((other, places));
    }
    Ok(layouts)
}

/// Whether a pinned link is attached to anything.
fn is_link_at_work(pin: &Path) -> bool {
    let Ok(Some(link)) = pinned_link(pin) else { return false };
    let is_of_a_cgroup = pin.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"local-"));
    if is_of_a_cgroup {
        bpf::link_cgroup(link.as_fd()).is_ok_and(|there| there != 0)
    } else {
        bpf::tcx_interface(link.as_fd()).is_ok_and(|there| there != 0)
    }
}

/// Whether the filters of a place are in its network namespace. The kernel gives the number of one that is gone to a new
/// one, so being there does not mean much.
fn has_filters_elsewhere(index: u32, value: &PlaceValue) -> bool {
    if value.hook != HOOK_CLSACT {
        return false;
    }
    match find(value.netns) {
        Found::Nowhere => false,
        // What cannot be looked at may have them.
        Found::Closed => true,
        Found::Open(netns) => {
            netns.run(|| has_filters(index, value)).map_or(true, |outcome| outcome.unwrap_or(true))
        }
    }
}

/// Where a network namespace is.
enum Found {
    /// Nowhere: nobody can go there any more.
    Nowhere,
    /// It is somewhere, and cannot be opened.
    Closed,
    /// Here.
    Open(Netns),
}

/// Looks for a network namespace: mounted, entered by a thread, or held by a descriptor.
fn find(inode: u64) -> Found {
    let name = format!("net:[{inode}]");
    let mut found = Found::Nowhere;
    // What is mounted does not vanish; threads and descriptors do.
    let paths = mounted(&name).into_iter().map(|path| (path, false));
    for (path, may_vanish) in paths.chain(held(&name).map(|path| (path, true))) {
        match Netns::at(&path) {
            Ok(netns) if netns.identity().inode == inode => return Found::Open(netns),
            // Another one by now.
            Ok(_) => {}
            // It ended meanwhile: the kernel says ENOENT or, while it is ending, EACCES.
            Err(_) if may_vanish && !leads_to(&path, &name) => {}
            Err(_) => found = Found::Closed,
        }
    }
    found
}

/// Where network namespaces of that name are mounted, for us and for the first process.
fn mounted(name: &str) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for (process, root) in [("self", ""), ("1", "/proc/1/root")] {
        let mounts = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap_or_default();
        for mount in mounts.lines() {
            // The fourth field is what of its file system is mounted, the fifth where.
            let mut fields = mount.split(' ').skip(3);
            if fields.next() == Some(name) {
                paths.extend(fields.next().map(|place| PathBuf::from(format!("{root}{place}"))));
            }
        }
    }
    paths
}

/// Threads that are in the network namespace of that name, and descriptors of it.
fn held(name: &str) -> impl Iterator<Item = PathBuf> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    entries(Path::new("/proc"))
        .flat_map(move |process| {
            let threads = entries(&process.join("task")).map(|thread| thread.join("ns/net"));
            threads.chain(entries(&process.join("fd")))
        })
        .filter(move |path| leads_to(path, name))
}

/// Whether a link in `/proc` leads to what has this name.
fn leads_to(path: &Path, name: &str) -> bool {
    fs::read_link(path).is_ok_and(|target| target.as_os_str() == name)
}
