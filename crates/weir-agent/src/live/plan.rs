//! What is to be counted: which interfaces, in which directions, by which means.

use weir_datapath::{flow::Directions, interface::Interface, netns::Netns, role};
use weir_flow::{Direction, Role};

use super::Pattern;

/// What is to be counted.
pub struct Plan {
    /// Where; our own network namespace if nothing is said.
    pub netns: Option<Netns>,
    /// Which interfaces. Without any, their roles decide.
    pub patterns: Vec<Pattern>,
    /// Which directions.
    pub directions: Directions,
}

/// How an interface is to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which directions.
    pub directions: Directions,
    /// Whether packets that came in at another interface of its role that is counted are duplicates when they leave.
    pub deduplicate: bool,
}

impl Plan {
    /// Whether and how this interface is counted. Interfaces that the user names are counted as they see things
    /// themselves; otherwise each packet once for each role.
    pub fn wanted(&self, interface: &Interface) -> Option<Wanted> {
        let is_default = self.patterns.is_empty();
        let candidates = if is_default {
            role::default_directions(interface.role)?
        } else if self.patterns.iter().any(|pattern| pattern.matches(&interface.name)) {
            Directions::Both
        } else {
            return None;
        };
        let has = |direction| candidates.contains(direction) && self.directions.contains(direction);
        let directions = match (has(Direction::Ingress), has(Direction::Egress)) {
            (true, true) => Directions::Both,
            (true, false) => Directions::Ingress,
            (false, true) => Directions::Egress,
            (false, false) => return None,
        };
        Some(Wanted { directions, deduplicate: is_default })
    }

    /// Whether packets of this interface, which is not counted itself, count at its ports where these are counted.
    pub fn may_count_at_ports(&self, interface: &Interface) -> bool {
        self.patterns.is_empty() && interface.role == Role::Bridge
    }

    /// The names that the user gave, if they are all names and no patterns.
    pub fn exact_names(&self) -> Option<Vec<&str>> {
        let names: Option<Vec<&str>> =
            self.patterns.iter().map(|pattern| pattern.is_exact().then(|| pattern.as_str())).collect();
        names.filter(|names| !names.is_empty())
    }
}
