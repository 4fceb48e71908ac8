//! What a [`Redirect`](super::Redirect) of another network namespace, or of a build with other layouts, has left behind.
//!
//! Filters of clsact can be seen only from their own network namespace, and maps of another layout cannot be read. What is
//! at work and cannot be taken off from here is not touched.

use std::{fs, os::fd::AsFd as _, path::Path};

use weir_common::redirect::{HOOK_CLSACT, PlaceValue};
use weir_flow::Direction;

use super::{
    attach::{filters, pinned_link, place_name, remove_filters},
    error::RedirectError,
    pins::Pins,
    places::devices,
    teardown::{Removed, named, remove_pinned, remove_tree},
};
use crate::{bpf, netns::Netns};

/// Whether any program of a place of another network namespace may still be at work.
pub(super) fn may_live(pins: &Pins, index: u32, value: &PlaceValue) -> bool {
    if value.hook == HOOK_CLSACT {
        return exists(value.netns);
    }
    [true, false].into_iter().any(|is_forward| is_at_work(&pins.link(index, is_forward)))
}

/// Fails if one of these places has filters in another network namespace, which would be forgotten.
pub(super) fn refuse_what_is_out_of_reach(
    pins: &Pins,
    places: &[(u32, PlaceValue)],
    here: u64,
) -> Result<(), RedirectError> {
    let out_of_reach =
        |value: &&PlaceValue| value.hook == HOOK_CLSACT && value.netns != here && exists(value.netns);
    match places.iter().map(|(_, value)| value).find(out_of_reach) {
        Some(value) => {
            Err(RedirectError::OtherNamespace { path: pins.root.clone(), interface: place_name(value) })
        }
        None => Ok(()),
    }
}

/// Whether a network namespace is still there: mounted somewhere, entered by a thread, or held by a descriptor.
fn exists(inode: u64) -> bool {
    let name = format!("net:[{inode}]");
    let is_it = |path: &Path| fs::read_link(path).is_ok_and(|target| target.as_os_str() == name.as_str());
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    // The fourth field of a mount is what of its file system is mounted.
    let is_mounted = ["/proc/self/mountinfo", "/proc/1/mountinfo"].into_iter().any(|path| {
        let mounts = fs::read_to_string(path).unwrap_or_default();
        mounts.lines().any(|mount| mount.split(' ').nth(3) == Some(&name))
    });
    is_mounted
        || entries(Path::new("/proc")).any(|process| {
            entries(&process.join("task")).any(|thread| is_it(&thread.join("ns/net")))
                || entries(&process.join("fd")).any(|descriptor| is_it(&descriptor))
        })
}

/// Whether a pinned link is attached to anything.
fn is_at_work(pin: &Path) -> bool {
    let Ok(Some(link)) = pinned_link(pin) else { return false };
    let is_of_a_cgroup = pin.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"local-"));
    if is_of_a_cgroup {
        bpf::link_cgroup(link.as_fd()).is_ok_and(|there| there != 0)
    } else {
        bpf::tcx_interface(link.as_fd()).is_ok_and(|there| there != 0)
    }
}

/// Fails if what another layout has pinned is at work; if not, it is removed.
pub(super) fn refuse_other_layouts(pins: &Pins, netns: &Netns) -> Result<(), RedirectError> {
    for other in pins.others() {
        let is_alive = links(&other).iter().any(|link| is_at_work(link));
        // Where there are pins of this layout, filters are theirs.
        if is_alive || !pins.are_there() && !filters_here(netns)?.is_empty() {
            return Err(RedirectError::OtherLayout { path: other.version });
        }
        remove_layout(&other, false, &mut Vec::new())?;
    }
    Ok(())
}

/// The same where nothing may be changed: only links are looked at.
pub(super) fn refuse_links_of_other_layouts(pins: &Pins) -> Result<(), RedirectError> {
    match pins.others().into_iter().find(|other| links(other).iter().any(|link| is_at_work(link))) {
        Some(other) => Err(RedirectError::OtherLayout { path: other.version }),
        None => Ok(()),
    }
}

/// Removes what other layouts have pinned, and filters on all interfaces of this network namespace.
pub(super) fn remove_other_layouts(
    pins: &Pins,
    netns: &Netns,
    dry_run: bool,
    removed: &mut Vec<Removed>,
) -> Result<(), RedirectError> {
    let others = pins.others();
    for other in &others {
        remove_layout(other, dry_run, removed)?;
    }
    if others.is_empty() {
        return Ok(());
    }
    for (index, interface, direction) in filters_here(netns)? {
        let program =
            Removed::Program { interface: interface.clone(), direction: named(direction), hook: "clsact" };
        if !removed.contains(&program) {
            removed.push(program);
        }
        if !dry_run {
            remove_filters(index, &interface, false)?;
        }
    }
    Ok(())
}

fn remove_layout(pins: &Pins, dry_run: bool, removed: &mut Vec<Removed>) -> Result<(), RedirectError> {
    for link in links(pins) {
        removed.push(Removed::Pin { path: link.clone() });
        if !dry_run {
            remove_pinned(&link)?;
        }
    }
    remove_tree(&pins.version, dry_run, removed)
}

/// The pins of links: those that send connections elsewhere come before those that see answers.
fn links(pins: &Pins) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(&pins.links).into_iter().flatten().flatten();
    let mut links: Vec<_> = entries.map(|entry| entry.path()).collect();
    links.sort_by_key(|path| {
        let name = path.to_string_lossy();
        !(name.ends_with("-forward") || name.contains("local-connect") || name.contains("local-sendmsg"))
    });
    links
}

/// Interfaces of this network namespace with filters of ours, in each direction.
fn filters_here(netns: &Netns) -> Result<Vec<(u32, String, Direction)>, RedirectError> {
    let mut there = Vec::new();
    for device in devices(netns)? {
        for direction in Direction::ALL {
            if !filters(device.index, &device.name, direction)?.is_empty() {
                there.push((device.index, device.name.clone(), direction));
            }
        }
    }
    Ok(there)
}
