//! Notices that the rules file, or the interfaces, have changed.
//!
//! The directory of the file is watched, because editors and Kubernetes put a new file in the place of the old one.

use std::{
    fs, io,
    mem::MaybeUninit,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::inotify::{self, CreateFlags, Reader, WatchFlags},
    io::Errno,
};
use weir_datapath::{interface::Watcher, netns::Netns};

use super::owner::Owner;
use crate::journal;

/// Bytes of events that are read at a time.
const ROOM: usize = 4096;

/// Has the file read again whenever it changes, until the process ends. `known` is what it held when it was last read.
pub(super) fn file(path: PathBuf, known: String, owner: Owner) -> io::Result<()> {
    let watched = inotify::init(CreateFlags::CLOEXEC)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let changes = WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::ONLYDIR;
    inotify::add_watch(&watched, directory, changes)?;
    thread::Builder::new().name("weir-file".to_owned()).spawn(move || {
        let mut known = Ok(known);
        let mut room = [MaybeUninit::uninit(); ROOM];
        let mut events = Reader::new(&watched, &mut room);
        loop {
            match events.next() {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => {
                    journal::error(format_args!("the rules file is no longer followed: {error}"));
                    return;
                }
            }
            // Several events of one change find nothing more to do.
            let text = read(&path);
            if text == known {
                continue;
            }
            known.clone_from(&text);
            if owner.tell_blocking(move |proxy| proxy.reload(text)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// The text of the file, or why there is none.
pub(super) fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Has interfaces looked after whenever they change, until the process ends.
pub(super) fn interfaces(owner: Owner) -> io::Result<()> {
    let netns = Netns::current().map_err(io::Error::other)?;
    let mut watcher = Watcher::open(&netns).map_err(io::Error::other)?;
    thread::Builder::new().name("weir-links".to_owned()).spawn(move || {
        loop {
            let mut ready = [PollFd::from_borrowed_fd(watcher.as_fd(), PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    journal::error(format_args!("interfaces are no longer followed: {error}"));
                    return;
                }
            }
            match watcher.next_events() {
                Ok(events) if events.is_empty() => continue,
                Ok(_) => {}
                // Something was missed, perhaps: looking costs little.
                Err(error) => journal::debug(format_args!("changes of interfaces: {error}")),
            }
            if owner.tell_blocking(super::proxy::Proxy::refresh).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}
