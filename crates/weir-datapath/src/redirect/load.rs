//! Loading the object: maps that are pinned are used, others are made and pinned.

use std::{collections::hash_map::RandomState, hash::BuildHasher as _};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData},
};
use weir_common::redirect::RedirectConfig;

use super::{
    attach::PROGRAMS,
    error::RedirectError,
    handle::Settings,
    maps::{Maps, PINNED, failed},
    pins::Pins,
    resize,
    stamp::Stamps,
};
use crate::{
    bpf,
    features::{Facts, softirqs_interleave},
    flow::clock::Clock,
    memlock,
    object::{self, LoadError},
};

/// `BPF_F_IPV6`.
const IPV6_FLAG: u64 = 1 << 7;

/// Which tables of connections programs look into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tables {
    /// The one that is pinned.
    One,
    /// That, and first the one that connections are moved to.
    Moving,
}

/// Loads maps, and the programs of packets.
pub(super) fn load(pins: &Pins, settings: &Settings, tables: Tables) -> Result<Ebpf, RedirectError> {
    let mut ebpf = load_maps(pins, settings, tables)?;
    object::load_programs(&mut ebpf, &PROGRAMS)?;
    // What benchmarks compare with.
    object::load_programs(&mut ebpf, &["weir_empty"])?;
    Ok(ebpf)
}

/// Loads maps. Which programs are loaded then is the caller's business.
pub(super) fn load_maps(pins: &Pins, settings: &Settings, tables: Tables) -> Result<Ebpf, RedirectError> {
    if object::REDIRECT.is_empty() {
        return Err(LoadError::NoObject.into());
    }
    memlock::lift();
    let flag = if bpf::run::knows_ipv6_checksums() { IPV6_FLAG } else { 0 };
    let rate = ticks_per_second();
    let caching = u32::from(!softirqs_interleave(&Facts::of_process()));
    let moving = u32::from(tables == Tables::Moving);
    let capacity = settings.capacity.unwrap_or(Settings::CAPACITY).max(1);
    let mut loader = EbpfLoader::new();
    loader
        .override_global("IPV6_FLAG", &flag, true)
        .override_global("HZ", &rate, true)
        .override_global("CACHING", &caching, true)
        .override_global("MOVING", &moving, true)
        // Two entries for each.
        .map_max_entries("CONNECTIONS", capacity.saturating_mul(2));
    for name in PINNED {
        loader.map_pin_path(name, pins.maps.join(name));
    }
    if tables == Tables::Moving {
        loader.map_pin_path("CONNECTIONS", resize::next(pins));
        loader.map_pin_path("OLD_CONNECTIONS", pins.maps.join("CONNECTIONS"));
    }
    Ok(loader.load(object::REDIRECT)?)
}

/// Measures the clock, and writes what is kept with the maps if it is not there.
pub(super) fn set_up(ebpf: &mut Ebpf, maps: &mut Maps) -> Result<Stamps, RedirectError> {
    let clock = Clock::calibrate(ebpf).map_err(LoadError::from)?;
    let (jiffies, nanoseconds) = clock.anchor();
    let mut config = config(maps)?;
    if config.seed == 0 {
        config.seed = RandomState::new().hash_one(nanoseconds) | 1;
    }
    config.jiffies = jiffies;
    config.nanoseconds = nanoseconds;
    config.rate = clock.rate();
    let words: [u64; 4] = zerocopy::transmute!(config);
    maps.config.set(0, words, 0).map_err(failed("CONFIG"))?;
    Ok(Stamps::new(&config))
}

/// Makes the programs forget what they keep outside of the maps that are pinned.
pub(super) fn begin_epoch(ebpf: &mut Ebpf) -> Result<(), RedirectError> {
    const EPOCH: &str = ".data.epoch";
    let map = ebpf.map_mut(EPOCH).ok_or(LoadError::NoMap(EPOCH))?;
    let mut epoch: Array<&mut MapData, u64> = map.try_into().map_err(failed(EPOCH))?;
    epoch.set(0, RandomState::new().hash_one(EPOCH), 0).map_err(failed(EPOCH))
}

/// What is kept with the maps.
pub(super) fn config(maps: &Maps) -> Result<RedirectConfig, RedirectError> {
    let words = maps.config.get(&0, 0).map_err(failed("CONFIG"))?;
    Ok(zerocopy::transmute!(words))
}

/// The rate of the kernel's ticks (`CONFIG_HZ`), from the resolution of its coarse clock.
fn ticks_per_second() -> u32 {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills in the structure; this clock always exists.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) };
    let length = u32::try_from(resolution.tv_nsec.max(1)).unwrap_or(1);
    (1_000_000_000 + length / 2) / length
}
