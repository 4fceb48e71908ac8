//! Who makes a call, and which rule lets it through.

use aya_ebpf::{
    btf_maps::lpm_trie::Key,
    helpers::generated::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_task_btf,
        bpf_get_current_uid_gid,
    },
};
use weir_common::tap::{
    CGROUP, Caller, CommandKey, Control, Ends, Entry, NetworkKey, NumberKey, PID, PORT_STARTS, RuleSet,
};

use crate::{
    assembly::{opaque, zero},
    maps::{CALLS, COMMANDS, CONTROL, NETWORKS, NUMBERS, RULE_SETS},
    places::{place, read},
    socket::{AF_UNIX, typed},
    tell::count,
};

/// Deepest nesting of cgroups that is followed.
const CGROUP_DEPTH: u32 = 32;

/// Beside the role: the other end is not known.
pub(crate) const NAMELESS: u64 = 1 << 8;

/// Beside the role: whatever the ends are.
pub(crate) const ANY_ENDS: u64 = 1 << 9;

/// What is in force, if anything is.
#[inline(always)]
pub(crate) fn in_force() -> Option<(Control, &'static RuleSet)> {
    let control = *CONTROL.get(0)?;
    if control.generation == 0 || place!(ready) == 0 {
        return None;
    }
    let set = RULE_SETS.get(control.set)?;
    Some((control, set))
}

/// Notes who makes the call, as far as rules look at it.
///
/// Like the other functions with names of their own, a global function: the verifier checks it once, not anew for each path
/// that leads there.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_tap_caller(slot: u64, commands: u64, cgroups: u64) -> u64 {
    let Some(call) = CALLS.get_ptr_mut(slot as u32) else { return 0 };
    // SAFETY: a valid element, of this CPU and this program.
    let caller = unsafe { &mut (*call).caller };
    // SAFETY: no arguments, no preconditions.
    let numbers = unsafe { bpf_get_current_pid_tgid() };
    caller.pid = (numbers >> 32) as u32;
    caller.tid = numbers as u32;
    let zero = zero();
    caller.command = [zero; 2];
    caller.cgroup = zero;
    caller.user = 0;
    if commands != 0 {
        caller.command = own_command();
    }
    if cgroups != 0 {
        // SAFETY: as above.
        caller.cgroup = unsafe { bpf_get_current_cgroup_id() };
    }
    0
}

/// Notes the rest of what is told of who makes the call.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_tap_describe(slot: u64) -> u64 {
    let Some(call) = CALLS.get_ptr_mut(slot as u32) else { return 0 };
    // SAFETY: a valid element, of this CPU and this program.
    let caller = unsafe { &mut (*call).caller };
    caller.command = own_command();
    // SAFETY: no arguments, no preconditions.
    caller.cgroup = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: as above.
    caller.user = unsafe { bpf_get_current_uid_gid() } as u32;
    0
}

/// Notes another task than the one that runs, in full.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_tap_other(slot: u64, task: u64) -> u64 {
    let Some(call) = CALLS.get_ptr_mut(slot as u32) else { return 0 };
    // SAFETY: a valid element, of this CPU and this program.
    let caller = unsafe { &mut (*call).caller };
    caller.pid = read(task, place!(task_tgid)).unwrap_or(0);
    caller.tid = read(task, place!(task_pid)).unwrap_or(0);
    caller.command = command(task);
    caller.cgroup = cgroup_of(task).and_then(identifier).unwrap_or(0);
    caller.user = read::<u64>(task, place!(task_cred))
        .and_then(|credentials| read(credentials, place!(cred_user)))
        .unwrap_or(0);
    0
}

/// Command name of the process that runs this. Its structures are read without a helper.
#[inline(always)]
fn own_command() -> [u64; 2] {
    // SAFETY: no arguments, no preconditions.
    let task = unsafe { bpf_get_current_task_btf() }.cast::<u8>();
    let leader: *const u8 = typed(task, place!(task_leader));
    [typed(leader, place!(task_command)), typed(leader, place!(task_command) + 8)]
}

/// Command name of a process.
#[inline(always)]
fn command(task: u64) -> [u64; 2] {
    read::<u64>(task, place!(task_leader))
        .and_then(|leader| read(leader, place!(task_command)))
        .unwrap_or_default()
}

#[inline(always)]
fn cgroup_of(task: u64) -> Option<u64> {
    let set = read::<u64>(task, place!(task_cgroups))?;
    read(set, place!(set_cgroup))
}

#[inline(always)]
fn identifier(cgroup: u64) -> Option<u64> {
    let node = read::<u64>(cgroup, place!(cgroup_node))?;
    read(node, place!(node_id))
}

/// Whether the verdict in the entry is for another call than this one.
#[inline(always)]
pub(crate) fn is_stale(entry: &Entry, control: Control, caller: &Caller) -> bool {
    entry.generation != control.generation
        || entry.pid != caller.pid
        || entry.cgroup != caller.cgroup
        || entry.command[0] != caller.command[0]
        || entry.command[1] != caller.command[1]
}

/// Judges anew and keeps the verdict. Caller and ends are those of the call, `task` is that of the caller; `beside` is what
/// is said beside the role.
#[inline(always)]
pub(crate) fn judge(
    slot: u32,
    entry: &mut Entry,
    control: Control,
    set: &RuleSet,
    task: u64,
    caller: &Caller,
    beside: u64,
) {
    let verdict = weir_tap_judge(u64::from(slot), task, u64::from(entry.role) | beside);
    entry.verdict = [verdict as u8, (verdict >> 8) as u8];
    entry.pid = caller.pid;
    // What rules do not look at is zero in the caller of every later call.
    entry.cgroup = if set.cgroups == 0 { 0 } else { caller.cgroup };
    entry.command = if set.commands == 0 { [0; 2] } else { caller.command };
    entry.generation = control.generation;
}

/// The rules that let the call through, by direction: the place of each in the set and 1, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_tap_judge(slot: u64, task: u64, role: u64) -> u64 {
    let Some((control, set)) = in_force() else { return 0 };
    let Some(call) = CALLS.get_ptr(slot as u32) else { return 0 };
    // SAFETY: a valid element, of this CPU and this program.
    let call = unsafe { &*call };
    let mut mask = by_process(control.set, set, task, &call.caller) & set.roles[(role & 3) as usize];
    if role & ANY_ENDS == 0 {
        let fitting = mask & by_ends(control.set, set, &call.ends);
        if role & NAMELESS != 0 && mask & !fitting != 0 {
            count(|counts| &raw mut counts.nameless);
        }
        mask = fitting;
    }
    u64::from(first(mask & set.ways[0])) | u64::from(first(mask & set.ways[1])) << 8
}

/// Rules that mean the process.
#[inline(always)]
fn by_process(number: u32, set: &RuleSet, task: u64, caller: &Caller) -> u64 {
    let mut mask = if caller.pid == place!(own_pid) { 0 } else { set.all };
    let key = NumberKey { number: u64::from(caller.pid), set: number, kind: PID };
    // SAFETY: values are not removed while they are in force.
    if let Some(rules) = unsafe { NUMBERS.get(&key) } {
        mask |= *rules;
    }
    if set.commands != 0 {
        let key = CommandKey { command: caller.command, set: u64::from(number) };
        // SAFETY: as above.
        if let Some(rules) = unsafe { COMMANDS.get(&key) } {
            mask |= *rules;
        }
    }
    if set.cgroups != 0 {
        let mut cgroup = cgroup_of(task).unwrap_or(0);
        for _ in 0..CGROUP_DEPTH {
            if cgroup == 0 {
                break;
            }
            let Some(id) = identifier(cgroup) else { break };
            let key = NumberKey { number: id, set: number, kind: CGROUP };
            // SAFETY: as above.
            if let Some(rules) = unsafe { NUMBERS.get(&key) } {
                mask |= *rules;
            }
            let Some(parent) = read::<u64>(cgroup, place!(cgroup_parent)) else { break };
            if parent == 0 {
                break;
            }
            cgroup = read(parent, place!(state_cgroup)).unwrap_or(0);
        }
    }
    mask
}

/// Rules that mean the socket's ends.
#[inline(always)]
fn by_ends(number: u32, set: &RuleSet, ends: &Ends) -> u64 {
    let mut mask = set.any_network;
    if ends.family == AF_UNIX {
        // No ports either: rules that name some do not mean it.
        return mask & set.any_port;
    }
    let key = Key::new(192, NetworkKey { set: u64::from(number).to_ne_bytes(), address: ends.remote });
    if let Some(rules) = NETWORKS.get(&key) {
        mask |= *rules;
    }
    let mut by_ports = by_port(set, ends.local_port);
    if ends.remote_port != 0 {
        by_ports |= by_port(set, ends.remote_port);
    }
    mask & by_ports
}

/// Rules for a port: those of the last start that is not above it.
///
/// Without a branch: the verifier would follow each way through the table.
#[inline(always)]
fn by_port(set: &RuleSet, port: u16) -> u64 {
    const LAST: usize = PORT_STARTS - 1;
    let mut index = 0_usize;
    let mut step = PORT_STARTS / 2;
    while step > 0 {
        let start = set.port_starts[(index + step) & LAST];
        let is_above = opaque(u64::from(port).wrapping_sub(u64::from(start))) >> 63;
        index += step * (1 - is_above as usize);
        step /= 2;
    }
    set.port_masks[index & LAST]
}

/// The first rule of a mask: its place and 1, or 0. There is no instruction for it: the lowest bit alone, then its place
/// by halves, without a branch for the same reason.
#[inline(always)]
fn first(mask: u64) -> u8 {
    const HALVES: [(u64, u64); 6] = [
        (0x0000_0000_ffff_ffff, 32),
        (0x0000_ffff_0000_ffff, 16),
        (0x00ff_00ff_00ff_00ff, 8),
        (0x0f0f_0f0f_0f0f_0f0f, 4),
        (0x3333_3333_3333_3333, 2),
        (0x5555_5555_5555_5555, 1),
    ];
    let bit = mask & mask.wrapping_neg();
    let mut place = 1;
    let mut index = 0;
    while index < HALVES.len() {
        let (half, distance) = HALVES[index];
        place += distance * (1 - is_any(bit & half));
        index += 1;
    }
    (place * is_any(mask)) as u8
}

/// 1 if a bit is set, else 0.
#[inline(always)]
fn is_any(bits: u64) -> u64 {
    opaque(bits | bits.wrapping_neg()) >> 63
}
