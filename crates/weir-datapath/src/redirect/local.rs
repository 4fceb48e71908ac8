//! Sockets of this host that are led to a backend as they connect: programs of a cgroup, by pinned links.
//!
//! They act where packets cannot be redirected (see [`LocalMode::Cgroup`]), for sockets of one network namespace whose
//! processes are in the cgroup or below. Links stay without a process; another process puts its programs in their place.
//! What names listeners is attached before what leads to backends, and taken off after it.

mod cgroup;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    net::{IpAddr, UdpSocket},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSockAddr, ProgramError, links::FdLink},
};
use weir_common::redirect::{LocalConfig, MOST_OWN_ADDRESSES, OwnAddress, PLACE_UPLINK};

use super::{
    attach::pinned_link,
    error::RedirectError,
    handle::{Redirect, Settings},
    load::{self, Tables},
    maps::{Maps, failed, found, is_there},
    pins::Pins,
    place::{LocalMode, LocalState},
    places::all_places,
    teardown::{Removed, remove_pinned},
    words::address_words,
};
use crate::{bpf, features::mount_of_type, object};

/// Programs and the pins of their links, in the order of attaching.
const PROGRAMS: [(&str, &str); 8] = [
    ("weir_peername4", "local-getpeername4"),
    ("weir_peername6", "local-getpeername6"),
    ("weir_recvmsg4", "local-recvmsg4"),
    ("weir_recvmsg6", "local-recvmsg6"),
    ("weir_sendmsg4", "local-sendmsg4"),
    ("weir_sendmsg6", "local-sendmsg6"),
    ("weir_connect4", "local-connect4"),
    ("weir_connect6", "local-connect6"),
];

/// What is known of this way besides what is in the maps.
#[derive(Debug, Default)]
pub(super) struct Local {
    /// Cookie of the network namespace; 0 if the way is off.
    netns: u64,
    /// Why it is off though it was asked for.
    trouble: Option<RedirectError>,
    /// What was asked for; `None` if the way is to be off.
    wanted: Option<Settings>,
    /// Number of the cgroup that was tried last.
    tried: Option<u64>,
}

impl Local {
    /// Attaches the programs, or takes them off, as the settings say. Where they cannot be attached the rest works on.
    pub(super) fn open(
        ebpf: &mut Ebpf,
        pins: &Pins,
        maps: &mut Maps,
        settings: &Settings,
    ) -> Result<Self, RedirectError> {
        if settings.local == LocalMode::Off {
            remove(pins)?;
            return Ok(Self::default());
        }
        let mut local = Self { wanted: Some(settings.clone()), ..Self::default() };
        match Self::attach(ebpf, pins, maps, settings) {
            Ok(netns) => local.netns = netns,
            Err(error) => {
                remove(pins)?;
                local.trouble = Some(error);
            }
        }
        local.tried = cgroup_number(settings).ok();
        Ok(local)
    }

    fn attach(
        ebpf: &mut Ebpf,
        pins: &Pins,
        maps: &mut Maps,
        settings: &Settings,
    ) -> Result<u64, RedirectError> {
        let netns = netns_cookie().map_err(RedirectError::NetnsCookie)?;
        let path = wanted_path(settings)?;
        let failed = |source| RedirectError::Cgroup { path: path.clone(), source };
        let cgroup = File::open(&path).map_err(|error| failed(ProgramError::IOError(error)))?;
        let id = cgroup.metadata().map_err(|error| failed(ProgramError::IOError(error)))?.ino();
        // Nothing is led anywhere until all of them are there.
        let was_on = is_attached(pins, id);
        if !was_on {
            write_config(maps, LocalConfig::default())?;
        }
        object::load_programs(ebpf, &PROGRAMS.map(|(program, _)| program))?;
        for (program, pin) in PROGRAMS {
            attach_one(ebpf, pins, (program, pin), &cgroup, id, &path)?;
        }
        Ok(netns)
    }

    /// Tells the programs whose sockets are meant.
    pub(super) fn tell(&self, maps: &mut Maps) -> Result<(), RedirectError> {
        let has_uplink = all_places(maps)?.iter().any(|(_, place)| place.role == PLACE_UPLINK);
        write_config(maps, LocalConfig { netns: self.netns, has_uplink: u64::from(has_uplink) })
    }
}

impl Redirect {
    /// How sockets of this host are led to backends.
    pub fn local(&self) -> LocalState {
        let id = link_cgroup(&self.pins, PROGRAMS[PROGRAMS.len() - 1].1);
        LocalState {
            cgroup: id.map(cgroup_path),
            is_alive: id.is_some_and(|id| id != 0 && is_attached(&self.pins, id)),
        }
    }

    /// Whether packets to an address do not leave this host, as the programs have it.
    ///
    /// # Errors
    ///
    /// [`RedirectError::Map`] if the kernel does not say.
    pub fn is_here(&self, address: IpAddr) -> Result<bool, RedirectError> {
        let known = found(self.maps.own_addresses.get(&own_key(address), 0), "OWN_ADDRESSES")?;
        Ok(address.is_loopback() || known.is_some())
    }

    /// Why sockets of this host are not led to backends though they should be.
    pub fn local_trouble(&self) -> Option<&RedirectError> {
        self.local.trouble.as_ref()
    }

    /// Attaches the programs to a cgroup that was made anew under its name; to be called about once a second. Says whether
    /// it did; what went wrong is [`Redirect::local_trouble`], and is tried again with the next cgroup only.
    pub fn refresh_local(&mut self) -> Result<bool, RedirectError> {
        let Some(settings) = self.local.wanted.clone() else { return Ok(false) };
        let id = match cgroup_number(&settings) {
            Ok(id) => id,
            Err(error) => {
                (self.local.tried, self.local.trouble) = (None, Some(error));
                return Ok(false);
            }
        };
        if self.local.tried == Some(id) {
            return Ok(false);
        }
        // It happens seldom, so nothing is kept ready for it.
        let mut maps = Maps::open(&self.pins.maps)?;
        let mut ebpf = load::load_maps(&self.pins, &settings, Tables::One)?;
        let attached = Local::attach(&mut ebpf, &self.pins, &mut maps, &settings);
        self.local.tried = Some(id);
        match attached {
            Ok(netns) => {
                (self.local.netns, self.local.trouble) = (netns, None);
                self.local.tell(&mut maps)?;
                Ok(true)
            }
            Err(error) => {
                remove(&self.pins)?;
                self.local.trouble = Some(error);
                Ok(false)
            }
        }
    }
}

/// Where the cgroup of the settings is.
fn wanted_path(settings: &Settings) -> Result<PathBuf, RedirectError> {
    if let Some(path) = &settings.cgroup {
        return Ok(path.clone());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount_of_type(&mounts, "cgroup2").ok_or(RedirectError::NoCgroup)
}

/// The number of the cgroup of the settings. One that is made anew has another.
fn cgroup_number(settings: &Settings) -> Result<u64, RedirectError> {
    let path = wanted_path(settings)?;
    let number = fs::metadata(&path).map(|metadata| metadata.ino());
    number.map_err(|error| RedirectError::Cgroup { path, source: ProgramError::IOError(error) })
}

fn write_config(maps: &mut Maps, config: LocalConfig) -> Result<(), RedirectError> {
    let words: [u64; 2] = zerocopy::transmute!(config);
    maps.local.set(0, words, 0).map_err(failed("LOCAL"))
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut CgroupSockAddr, ProgramError> {
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}

/// Attaches one program, or puts it in the place of that of a pinned link.
fn attach_one(
    ebpf: &mut Ebpf,
    pins: &Pins,
    (name, pin): (&str, &str),
    cgroup: &File,
    id: u64,
    path: &Path,
) -> Result<(), RedirectError> {
    let failed = |source| RedirectError::Cgroup { path: path.to_owned(), source };
    let program = program(ebpf, name).map_err(failed)?;
    let pin = pins.links.join(pin);
    if let Some(link) = pinned_link(&pin)? {
        if bpf::link_cgroup(link.as_fd()).is_ok_and(|there| there == id) {
            let program = program.fd().map_err(failed)?;
            return bpf::update_link(link.as_fd(), program.as_fd())
                .map_err(|error| failed(ProgramError::IOError(error)));
        }
        // Of another cgroup, or of one that is gone.
        remove_pinned(&pin)?;
    }
    // Links stand beside those of others by themselves; the mode for that is for attaching without a link.
    let link = program.attach(cgroup, CgroupAttachMode::Single).map_err(failed)?;
    let link = program.take_link(link).map_err(failed)?;
    let pinned = FdLink::try_from(link)
        .map_err(io::Error::other)
        .and_then(|link| link.pin(&pin).map(drop).map_err(io::Error::other));
    pinned.map_err(|source| RedirectError::Pin { path: pin, remedy: "the link cannot be pinned", source })
}

/// Whether all programs are on the cgroup of that number.
fn is_attached(pins: &Pins, id: u64) -> bool {
    PROGRAMS.iter().all(|(_, pin)| link_cgroup(pins, pin) == Some(id))
}

/// Number of the cgroup that a pinned link is on; 0 if that is gone.
fn link_cgroup(pins: &Pins, pin: &str) -> Option<u64> {
    let link = pinned_link(&pins.links.join(pin)).ok().flatten()?;
    bpf::link_cgroup(link.as_fd()).ok()
}

/// Takes the programs off: first what leads to backends.
fn remove(pins: &Pins) -> Result<(), RedirectError> {
    for (_, pin) in PROGRAMS.iter().rev() {
        remove_pinned(&pins.links.join(pin))?;
    }
    Ok(())
}

/// Takes the programs off and says what it did, or would.
pub(super) fn teardown(pins: &Pins, dry_run: bool, removed: &mut Vec<Removed>) -> Result<(), RedirectError> {
    for (name, pin) in PROGRAMS.iter().rev() {
        let pin = pins.links.join(pin);
        if !pin.exists() {
            continue;
        }
        removed.push(Removed::CgroupProgram { name: (*name).to_owned() });
        removed.push(Removed::Pin { path: pin.clone() });
        if !dry_run {
            remove_pinned(&pin)?;
        }
    }
    Ok(())
}

/// Whether an address is this host's: one of its own, or of loopback.
pub(super) fn is_here(address: IpAddr, own: &BTreeSet<IpAddr>) -> bool {
    address.is_loopback() || own.contains(&address)
}

/// An address as a key.
fn own_key(address: IpAddr) -> [u64; 3] {
    let own = OwnAddress { address: address_words(address), is_ipv6: u64::from(address.is_ipv6()) };
    zerocopy::transmute!(own)
}

/// Brings the addresses that programs know to those that this host has.
pub(super) fn write_addresses(maps: &mut Maps, addresses: &BTreeSet<IpAddr>) -> Result<(), RedirectError> {
    // Whoever has more than fit is led to backends at the first of them only.
    let wanted: BTreeSet<[u64; 3]> =
        addresses.iter().take(MOST_OWN_ADDRESSES as usize).copied().map(own_key).collect();
    let known: Result<Vec<[u64; 3]>, _> = maps.own_addresses.keys().collect();
    let known: BTreeSet<[u64; 3]> = known.map_err(failed("OWN_ADDRESSES"))?.into_iter().collect();
    for key in known.difference(&wanted) {
        is_there(maps.own_addresses.remove(key), "OWN_ADDRESSES")?;
    }
    for key in wanted.difference(&known) {
        maps.own_addresses.insert(key, 1, 0).map_err(failed("OWN_ADDRESSES"))?;
    }
    Ok(())
}

/// Number by which the kernel knows the network namespace of the calling thread (since 5.14, e8b9eab99232).
fn netns_cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).or_else(|_| UdpSocket::bind(("::", 0)))?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes, which the cookie has.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if outcome == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Where the cgroup of that number is; its number if that cannot be told.
fn cgroup_path(id: u64) -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let by_number = || PathBuf::from(format!("cgroup {id}"));
    let Some(mount) = mount_of_type(&mounts, "cgroup2") else { return by_number() };
    cgroup::path(&mount, id).unwrap_or_else(|_| by_number())
}
