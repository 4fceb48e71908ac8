//! Which programs are on an interface, whoever put them there, in the order in which they see packets.
//!
//! Only looks. Filters of the clsact qdisc are not looked at: they run behind all of TCX,
//! and a verdict other than "next" of a TCX program keeps packets from them.

use aya::programs::{ProgramError, SchedClassifier, TcAttachType};

use weir_flow::Direction;

/// A program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookProgram {
    /// Which way its packets go.
    pub direction: Direction,
    /// Its number.
    pub id: u32,
    /// Its name, cut by the kernel to 15 letters.
    pub name: String,
}

/// The TCX programs of an interface, those of the way in first.
pub fn tcx_programs(interface: &str) -> Result<Vec<HookProgram>, ProgramError> {
    let mut programs = Vec::new();
    for (direction, attach_type) in
        [(Direction::Ingress, TcAttachType::Ingress), (Direction::Egress, TcAttachType::Egress)]
    {
        let (_revision, found) = SchedClassifier::query_tcx(interface, attach_type)?;
        programs.extend(found.iter().map(|program| HookProgram {
            direction,
            id: program.id(),
            name: program.name_as_str().unwrap_or_default().to_owned(),
        }));
    }
    Ok(programs)
}
