//! Interfaces: attached to and taken off as rules and the machine change.

use std::collections::BTreeMap;

use weir_datapath::redirect::{Place, PlaceChange, PlaceState, RedirectError};

use super::{
    Proxy,
    error::{ChangeError, interface_error},
};
use crate::{
    causes::with_causes,
    journal,
    redirect::{Source, state::place_text},
};

fn tell(change: PlaceChange) {
    match change {
        PlaceChange::Gone { interface } => {
            journal::warn(format_args!("{interface} is gone; it is attached again when it comes"));
        }
        PlaceChange::Attached { interface, .. } => {
            journal::info(format_args!("attached to {interface}"));
        }
        PlaceChange::Failed { interface, error } => {
            let error = with_causes(&error);
            journal::error(format_args!("cannot attach to {interface}: {error}"));
        }
    }
}

impl Proxy {
    /// Interfaces have changed.
    pub(in crate::redirect) fn refresh(&mut self) {
        match self.datapath.refresh() {
            Ok(changes) => {
                changes.into_iter().for_each(tell);
                self.note("cannot look after interfaces", Ok::<_, RedirectError>(()));
            }
            Err(error) => self.note("cannot look after interfaces", Err(error)),
        }
    }

    /// Makes sure, before anything is changed, that every interface is there, or was and may come back.
    pub(super) fn check_places(&self, places: &[(Place, Source)]) -> Result<(), ChangeError> {
        let attached = self.datapath.places();
        for (place, _) in places {
            if !attached.iter().any(|known| known.interface == place.interface) {
                self.datapath.find(&place.interface).map_err(interface_error(&place.interface))?;
            }
        }
        Ok(())
    }

    /// Attaches to what is new and takes the programs off what is gone. The first that fails ends it.
    pub(super) fn settle_places(&mut self, places: Vec<(Place, Source)>) -> Result<(), ChangeError> {
        let attached: BTreeMap<String, PlaceState> =
            self.datapath.places().into_iter().map(|place| (place.interface.clone(), place)).collect();
        for (place, _) in &places {
            let known = attached.get(&place.interface);
            if known.is_none_or(|known| known.role != place.role || !known.is_alive) {
                match self.datapath.attach(place) {
                    Ok(_) => journal::info(format_args!("attached to {}", place_text(place))),
                    // It was there before, so it will be again.
                    Err(RedirectError::UnknownInterface(name)) if known.is_some() => {
                        journal::warn(format_args!("{name} is gone; it is attached again when it comes"));
                    }
                    Err(error) => return Err(interface_error(&place.interface)(error)),
                }
            }
        }
        for interface in attached.keys() {
            if !places.iter().any(|(place, _)| place.interface == *interface) {
                self.datapath.detach(interface).map_err(interface_error(interface))?;
                journal::info(format_args!("detached from {interface}"));
            }
        }
        self.places = places;
        Ok(())
    }
}

/// What a file does to the interfaces, in its words.
pub(super) fn places_notes(old: &[(Place, Source)], new: &[(Place, Source)]) -> Vec<String> {
    let without = |list: &[(Place, Source)], others: &[(Place, Source)]| -> Vec<String> {
        let is_other = |place: &Place| !others.iter().any(|(other, _)| other == place);
        list.iter().filter(|(place, _)| is_other(place)).map(|(place, _)| place_text(place)).collect()
    };
    let removed = without(old, new).into_iter().map(|text| format!("- interface {text}"));
    removed.chain(without(new, old).into_iter().map(|text| format!("+ interface {text}"))).collect()
}
