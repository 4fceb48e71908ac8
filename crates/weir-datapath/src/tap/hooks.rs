//! Which programs go where, by tier, and attaching them.

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
};

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSockAddr, FExit, KProbe, Program, ProgramError, RawTracePoint,
    },
};

use super::{
    error::TapError,
    settings::{Settings, Tier},
};
use crate::{bpf, features::mount_of_type, object::LoadError, sockets::kernel_types::KernelTypes};

/// A program and what it is attached to.
#[derive(Clone, Copy)]
pub(super) struct Hook {
    program: &'static str,
    kind: Kind,
    targets: &'static [&'static str],
}

/// How a program is attached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// To a tracepoint with typed arguments.
    Tracepoint,
    /// To a tracepoint of all system calls.
    Syscalls,
    /// To the end of a function.
    End,
    /// To a function by a probe.
    Probe,
}

const fn hook(program: &'static str, kind: Kind, targets: &'static [&'static str]) -> Hook {
    Hook { program, kind, targets }
}

/// What follows connections, whatever the tier.
const CONNECTIONS: [Hook; 2] = [
    hook("weir_tap_state", Kind::Tracepoint, &["inet_sock_set_state"]),
    hook("weir_tap_gone", Kind::Tracepoint, &["tcp_destroy_sock"]),
];

const SOCKETS: [Hook; 2] = [
    hook("weir_tap_sent", Kind::Tracepoint, &["sock_send_length"]),
    hook("weir_tap_received", Kind::Tracepoint, &["sock_recv_length"]),
];

const FUNCTIONS: [Hook; 4] = [
    hook("weir_tap_sent_4", Kind::End, &["inet_sendmsg"]),
    hook("weir_tap_sent_6", Kind::End, &["inet6_sendmsg"]),
    hook("weir_tap_received_4", Kind::End, &["inet_recvmsg"]),
    hook("weir_tap_received_6", Kind::End, &["inet6_recvmsg"]),
];

const PROBES: [Hook; 3] = [
    hook("weir_tap_probe_sent", Kind::Probe, &["inet_sendmsg", "inet6_sendmsg"]),
    hook("weir_tap_probe_received", Kind::Probe, &["inet_recvmsg", "inet6_recvmsg"]),
    hook("weir_tap_probe", Kind::Probe, &["inet_sendmsg", "inet6_sendmsg", "inet_recvmsg", "inet6_recvmsg"]),
];

const SYSCALLS: [Hook; 1] = [hook("weir_tap_syscall", Kind::Syscalls, &["sys_exit"])];

const MESSAGES: Hook = hook("weir_tap_messages", Kind::Syscalls, &["sys_enter"]);

const PEERS: [&str; 2] = ["weir_tap_peer_4", "weir_tap_peer_6"];

/// The programs of a tier, if the kernel has what they are attached to.
pub(super) fn of_tier(types: &KernelTypes, tier: Tier, settings: &Settings) -> Result<Vec<Hook>, TapError> {
    let own: &[Hook] = match tier {
        Tier::Sockets => &SOCKETS,
        Tier::Functions => &FUNCTIONS,
        Tier::Probes => &PROBES,
        Tier::Syscalls => &SYSCALLS,
    };
    let mut hooks: Vec<_> = CONNECTIONS.iter().chain(own).copied().collect();
    if settings.count_messages && tier != Tier::Syscalls {
        hooks.push(MESSAGES);
    }
    for hook in &hooks {
        for target in hook.targets {
            match hook.kind {
                Kind::Tracepoint if !types.has_tracepoint(target) => {
                    return Err(TapError::NoTracepoint(target));
                }
                Kind::End | Kind::Probe if !types.has_function(target) => {
                    return Err(TapError::NoFunction(target));
                }
                Kind::Tracepoint | Kind::Syscalls | Kind::End | Kind::Probe => {}
            }
        }
    }
    Ok(hooks)
}

/// Names of what the loader has to look up: functions, then tracepoints.
pub(super) fn names(hooks: &[Hook]) -> [Vec<&'static str>; 2] {
    let of_kind = |kind: Kind| {
        hooks.iter().filter(move |hook| hook.kind == kind).flat_map(|hook| hook.targets).copied().collect()
    };
    [of_kind(Kind::End), of_kind(Kind::Tracepoint)]
}

/// Loads and attaches a program.
pub(super) fn attach(object: &mut Ebpf, btf: &Btf, hook: &Hook) -> Result<(), TapError> {
    let program = object.program_mut(hook.program).ok_or(LoadError::NoProgram)?;
    attach_program(program, btf, hook.targets)
        .map_err(|source| TapError::Attach { hook: hook.targets[0], source })
}

fn attach_program(program: &mut Program, btf: &Btf, targets: &[&str]) -> Result<(), ProgramError> {
    match program {
        Program::BtfTracePoint(program) => {
            program.load(targets[0], btf)?;
            BtfTracePoint::attach(program)?;
        }
        Program::FExit(program) => {
            program.load(targets[0], btf)?;
            FExit::attach(program)?;
        }
        Program::RawTracePoint(program) => {
            program.load()?;
            RawTracePoint::attach(program, targets[0])?;
        }
        Program::KProbe(program) => {
            program.load()?;
            for target in targets {
                KProbe::attach(program, *target, 0)?;
            }
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    }
    Ok(())
}

/// Attaches what notes where datagrams come from. Says why not, if not.
pub(super) fn attach_peers(object: &mut Ebpf) -> Result<(), String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path = mount_of_type(&mounts, "cgroup2").ok_or("no cgroup v2 is mounted")?;
    let cgroup = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    for name in PEERS {
        let program = object.program_mut(name).ok_or("the object lacks a program")?;
        let attach = |program: &mut CgroupSockAddr| {
            program.load()?;
            // Links stand beside programs of others by themselves.
            program.attach(&cgroup, CgroupAttachMode::Single)
        };
        let program = program.try_into().map_err(|error: ProgramError| error.to_string())?;
        attach(program).map_err(|error| {
            let error = TapError::Attach { hook: "the cgroup", source: error };
            error.chain()
        })?;
    }
    Ok(())
}

/// Takes all programs off their hooks, as many as can be. The first error, if there are any.
pub(super) fn detach(object: &mut Ebpf) -> Result<(), TapError> {
    let mut detached = Ok(());
    for (_, program) in object.programs_mut() {
        let outcome = match program {
            Program::BtfTracePoint(program) => program.unload(),
            Program::FExit(program) => program.unload(),
            Program::RawTracePoint(program) => program.unload(),
            Program::KProbe(program) => program.unload(),
            Program::CgroupSockAddr(program) => program.unload(),
            _ => Ok(()),
        };
        match outcome {
            Ok(()) | Err(ProgramError::NotLoaded) => {}
            Err(source) => {
                detached = detached.and(Err(TapError::Attach { hook: "nothing more", source }));
            }
        }
    }
    detached
}

/// How often a program was not run, because it was running on that CPU already.
pub(super) fn skipped(object: &Ebpf) -> u64 {
    let programs = object.programs().filter_map(|(_, program)| program.fd().ok());
    programs.filter_map(|descriptor| bpf::skipped_runs(descriptor.as_fd()).ok()).sum()
}
