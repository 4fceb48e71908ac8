//! What every benchmark tells at its end: the machine, its own figures, and what was hoped for beside what was measured.

use serde_json::Value;

use crate::{
    machine::Machine,
    verdict::{self, Verdict},
};

/// Prints the result: for machines as one object that has `machine` and `verdicts` beside what is in `figures`, for people as
/// `tables` between the two.
pub(crate) fn tell(
    as_json: bool,
    mut machine: Machine,
    verdicts: &[Verdict],
    figures: impl FnOnce() -> Value,
    tables: impl FnOnce() -> String,
) {
    machine.look_again();
    if as_json {
        let mut all = figures();
        all["machine"] = machine.json();
        all["verdicts"] = verdicts.iter().map(Verdict::json).collect();
        println!("{all:#}");
    } else {
        print!("{}{}{}", machine.table(), tables(), verdict::table(verdicts));
    }
}
