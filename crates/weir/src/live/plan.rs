//! What is to be counted: which interfaces, in which directions, by which means.

use weir_datapath::{flow::Directions, interface::Interface, netns::Netns, role};
use weir_flow::{Direction, Role};

use crate::cli::{DirectionArg, Pattern};

/// What is to be counted.
pub(crate) struct Plan {
    /// Where; our own network namespace if nothing is said.
    pub(crate) netns: Option<Netns>,
    /// Which interfaces. Without any, their roles decide.
    pub(crate) patterns: Vec<Pattern>,
    /// Which directions.
    pub(crate) direction: DirectionArg,
}

/// How an interface is to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Which directions.
    pub(crate) directions: Directions,
    /// Whether packets that came in at another interface of its role that is counted are duplicates when they leave.
    pub(crate) deduplicate: bool,
}

impl Plan {
    /// Whether and how this interface is counted. Interfaces that the user names are counted as they see things
    /// themselves; otherwise each packet once for each role.
    pub(crate) fn wanted(&self, interface: &Interface) -> Option<Wanted> {
        let is_default = self.patterns.is_empty();
        let candidates = if is_default {
            role::default_directions(interface.role)?
        } else if self.patterns.iter().any(|pattern| pattern.matches(&interface.name)) {
            Directions::Both
        } else {
            return None;
        };
        let has = |direction| candidates.contains(direction) && self.direction.contains(direction);
        let directions = match (has(Direction::Ingress), has(Direction::Egress)) {
            (true, true) => Directions::Both,
            (true, false) => Directions::Ingress,
            (false, true) => Directions::Egress,
            (false, false) => return None,
        };
        Some(Wanted { directions, deduplicate: is_default })
    }

    /// Whether packets of this interface, which is not counted itself, count at its ports where these are counted.
    pub(crate) fn may_count_at_ports(&self, interface: &Interface) -> bool {
        self.patterns.is_empty() && interface.role == Role::Bridge
    }

    /// The names that the user gave, if they are all names and no patterns.
    pub(crate) fn exact_names(&self) -> Option<Vec<&str>> {
        let names: Option<Vec<&str>> =
            self.patterns.iter().map(|pattern| pattern.is_exact().then(|| pattern.as_str())).collect();
        names.filter(|names| !names.is_empty())
    }
}

impl DirectionArg {
    fn contains(self, direction: Direction) -> bool {
        match self {
            Self::Both => true,
            Self::Ingress => direction == Direction::Ingress,
            Self::Egress => direction == Direction::Egress,
        }
    }
}
