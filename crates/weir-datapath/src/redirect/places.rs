//! The interfaces of a [`Redirect`]: putting its programs there, keeping them there, and what is written down about that.
//!
//! A place is written down before anything is attached, so what a dead process left half done is found.

use std::collections::BTreeSet;

use aya::Ebpf;
use weir_common::redirect::PlaceValue;

use super::{
    attach::{self, Device},
    elsewhere,
    error::RedirectError,
    handle::Redirect,
    maps::{Maps, failed, is_there},
    pins::{Pins, unlink},
    place::{Attached, Place, PlaceChange, PlaceState, Role},
    teardown,
};
use crate::{
    interface::{Kind, Watcher},
    netns::Netns,
};

impl Redirect {
    /// Attaches to an interface, or replaces the programs there.
    pub fn attach(&mut self, place: &Place) -> Result<Attached, RedirectError> {
        let control = self.control.as_mut().ok_or(RedirectError::ReadOnly)?;
        let device = devices(&control.netns)?
            .into_iter()
            .find(|device| device.name == place.interface)
            .ok_or_else(|| RedirectError::UnknownInterface(place.interface.clone()))?;
        let there = self.place(&place.interface)?;
        if there
            .is_some_and(|(index, value)| index != device.index || attach::place_role(&value) != place.role)
        {
            self.detach(&place.interface)?;
        }
        let there = self.place(&place.interface)?.map(|(_, value)| value);
        self.attach_device(&device, place.role, there)
    }

    /// Takes the programs off an interface; nothing happens if there are none.
    pub fn detach(&mut self, interface: &str) -> Result<(), RedirectError> {
        self.control.as_ref().ok_or(RedirectError::ReadOnly)?;
        let Some((index, value)) = self.place(interface)? else { return Ok(()) };
        teardown::detach(&self.pins, index, &value)?;
        is_there(self.maps.places.remove(&index), "PLACES")?;
        self.local.tell(&mut self.maps)
    }

    /// Whether an interface of that name is in this network namespace.
    ///
    /// # Errors
    ///
    /// [`RedirectError::UnknownInterface`] if not.
    pub fn find(&self, interface: &str) -> Result<(), RedirectError> {
        let there = devices(&Netns::current()?)?.iter().any(|device| device.name == interface);
        if there { Ok(()) } else { Err(RedirectError::UnknownInterface(interface.to_owned())) }
    }

    /// The interfaces that are to be attached.
    pub fn places(&self) -> Vec<PlaceState> {
        let netns = Netns::current().ok();
        let here = netns.as_ref().map(|netns| netns.identity().inode);
        let present = netns.and_then(|netns| devices(&netns).ok()).unwrap_or_default();
        let mut places: Vec<PlaceState> = self
            .all_places()
            .unwrap_or_default()
            .into_iter()
            .map(|(ifindex, value)| {
                let interface = attach::place_name(&value);
                // What another network namespace has cannot be listed from here.
                let is_present = here != Some(value.netns)
                    || present.iter().any(|device| device.index == ifindex && device.name == interface);
                PlaceState {
                    ifindex,
                    role: attach::place_role(&value),
                    hook: attach::place_hook(&value),
                    is_alive: is_present && teardown::is_attached(&self.pins, ifindex, &value),
                    interface,
                }
            })
            .collect();
        places.sort_by(|a, b| a.interface.cmp(&b.interface));
        places
    }

    /// Attaches to interfaces that came again. To be called when interfaces change.
    pub fn refresh(&mut self) -> Result<Vec<PlaceChange>, RedirectError> {
        let control = self.control.as_ref().ok_or(RedirectError::ReadOnly)?;
        let present = devices(&control.netns)?;
        let mut changes = Vec::new();
        for (index, value) in self.all_places()? {
            let interface = attach::place_name(&value);
            let device = present.iter().find(|device| device.name == interface);
            match device {
                Some(device) if device.index == index && teardown::is_attached(&self.pins, index, &value) => {
                    // It may have become part of another one.
                    let now = PlaceValue { is_shared: u8::from(device.is_shared), ..value };
                    write_place(&mut self.maps, index, &now)?;
                }
                Some(device) => {
                    let role = attach::place_role(&value);
                    let again = self.move_place(index, device, role, value);
                    changes.push(match again {
                        Ok(_) => PlaceChange::Attached { interface, ifindex: device.index },
                        Err(error) => PlaceChange::Failed { interface, error },
                    });
                }
                // It has another name now, and goes on.
                None if teardown::is_attached(&self.pins, index, &value) => {}
                // Said once: the pins of what is gone are of no use.
                None if self.pins.link(index, true).exists() => {
                    unlink(&self.pins.link(index, true))?;
                    unlink(&self.pins.link(index, false))?;
                    changes.push(PlaceChange::Gone { interface });
                }
                None => {}
            }
        }
        Ok(changes)
    }

    /// Attaches both programs, or replaces them.
    fn attach_device(
        &mut self,
        device: &Device,
        role: Role,
        there: Option<PlaceValue>,
    ) -> Result<Attached, RedirectError> {
        let control = self.control.as_mut().ok_or(RedirectError::ReadOnly)?;
        let netns = control.netns.identity().inode;
        let mut value = there.unwrap_or_else(|| attach::place_value(device, role, netns));
        value.is_shared = u8::from(device.is_shared);
        let maps = &mut self.maps;
        let mut record = |value: &PlaceValue| write_place(maps, device.index, value);
        // Written down first: whatever comes in between is found by the next start, or by teardown.
        record(&value)?;
        let mut attach = |is_forward| {
            let was_there =
                attach::attach(&mut control.ebpf, &self.pins, device, &mut value, is_forward, &mut record)?;
            record(&value)?;
            Ok::<_, RedirectError>(was_there)
        };
        let was_answered = attach(false)?;
        let was_forwarded = attach(true)?;
        self.local.tell(&mut self.maps)?;
        Ok(Attached {
            ifindex: device.index,
            hook: attach::place_hook(&value),
            was_attached: was_answered && was_forwarded,
        })
    }

    /// Attaches to an interface that has come again.
    fn move_place(
        &mut self,
        old: u32,
        device: &Device,
        role: Role,
        value: PlaceValue,
    ) -> Result<Attached, RedirectError> {
        let there = (old == device.index).then_some(value);
        if there.is_none() {
            // It may live on under another name.
            teardown::detach(&self.pins, old, &value)?;
            is_there(self.maps.places.remove(&old), "PLACES")?;
        }
        self.attach_device(device, role, there)
    }

    fn all_places(&self) -> Result<Vec<(u32, PlaceValue)>, RedirectError> {
        all_places(&self.maps)
    }

    fn place(&self, interface: &str) -> Result<Option<(u32, PlaceValue)>, RedirectError> {
        Ok(self.all_places()?.into_iter().find(|(_, value)| attach::place_name(value) == interface))
    }
}

/// Replaces the programs of all interfaces: first those that see answers, so that no old one meets an answer that it
/// does not know.
pub(super) fn replace_programs(
    ebpf: &mut Ebpf,
    pins: &Pins,
    maps: &mut Maps,
    netns: &Netns,
) -> Result<(), RedirectError> {
    let places = all_places(maps)?;
    let present = devices(netns)?;
    for is_forward in [false, true] {
        for (index, value) in &places {
            let name = attach::place_name(value);
            // One that has another name now goes on, and so must its programs.
            let is_it = |device: &&_| {
                let Device { index: there, name: called, .. } = device;
                there == index && (*called == name || teardown::is_attached(pins, *index, value))
            };
            let Some(device) = present.iter().find(is_it) else { continue };
            let mut value = *value;
            let mut record = |value: &PlaceValue| write_place(maps, *index, value);
            attach::attach(ebpf, pins, device, &mut value, is_forward, &mut record)?;
        }
    }
    Ok(())
}

pub(super) fn all_places(maps: &Maps) -> Result<Vec<(u32, PlaceValue)>, RedirectError> {
    let mut places = Vec::new();
    for entry in &maps.places {
        let (index, words) = entry.map_err(failed("PLACES"))?;
        places.push((index, zerocopy::transmute!(words)));
    }
    Ok(places)
}

/// Interfaces go by numbers, which mean something in one network namespace only: those of others that are gone are
/// forgotten, and where one may be at work nothing is touched.
pub(super) fn forget_strangers(pins: &Pins, maps: &mut Maps, here: u64) -> Result<(), RedirectError> {
    for (index, value) in all_places(maps)?.into_iter().filter(|(_, value)| value.netns != here) {
        if elsewhere::is_place_at_work(pins, index, &value) {
            return Err(RedirectError::OtherNamespace {
                path: pins.root.clone(),
                interface: attach::place_name(&value),
            });
        }
        unlink(&pins.link(index, true))?;
        unlink(&pins.link(index, false))?;
        is_there(maps.places.remove(&index), "PLACES")?;
    }
    Ok(())
}

fn write_place(maps: &mut Maps, index: u32, value: &PlaceValue) -> Result<(), RedirectError> {
    let words: [u64; 4] = zerocopy::transmute!(*value);
    maps.places.insert(index, words, 0).map_err(failed("PLACES"))
}

/// The interfaces of a network namespace.
pub(super) fn devices(netns: &Netns) -> Result<Vec<Device>, RedirectError> {
    let watcher = Watcher::open(netns)?;
    let on_top: BTreeSet<u32> = watcher
        .interfaces()
        .filter(|interface| matches!(interface.kind, Kind::Macvlan) && interface.link_netnsid.is_none())
        .filter_map(|interface| interface.link_index)
        .collect();
    let devices = watcher.interfaces().map(|interface| Device {
        index: interface.index,
        name: interface.name.to_string(),
        link: interface.link,
        is_shared: interface.master.is_some() || on_top.contains(&interface.index),
    });
    Ok(devices.collect())
}
