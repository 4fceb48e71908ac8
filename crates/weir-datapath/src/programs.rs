//! Names of the programs that the kernel has loaded.

use std::collections::BTreeMap;

use aya::programs::loaded_programs;

/// Names of all loaded programs by their numbers, as far as the kernel tells (it keeps fifteen bytes of a name). Empty
/// without the privilege to ask (`CAP_SYS_ADMIN`).
pub fn names() -> BTreeMap<u32, String> {
    let programs = loaded_programs().map_while(Result::ok);
    programs.filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned()))).collect()
}
