//! Running a program once by its descriptor, which aya ties to the program object, and what can only be learnt by that.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    time::Duration,
};

use super::{Command, bpf, bpf_descriptor, length, number};

/// The beginning of the `test` member of `union bpf_attr`; the rest is zero by not being passed.
#[repr(C)]
#[derive(Default)]
struct TestAttributes {
    program_fd: u32,
    return_value: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// Runs a program `repeat` times on `frame` and returns the mean time of a run, the kernel's own part included.
pub fn test_run(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<Duration> {
    let mut attributes = TestAttributes {
        program_fd: number(program),
        data_size_in: length(frame),
        data_in: frame.as_ptr() as u64,
        repeat,
        ..TestAttributes::default()
    };
    // SAFETY: the frame outlives the call, and nothing is written but the attributes.
    unsafe { bpf(Command::ProgTestRun, &mut attributes) }?;
    Ok(Duration::from_nanos(attributes.duration.into()))
}

/// Outcome of running a program on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketRun {
    /// What the program returned.
    pub verdict: i32,
    /// The packet afterwards.
    pub frame: Vec<u8>,
}

/// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE`: the packet comes with the sum that a network card made, and the run fails with
/// `EBADMSG` if the program left that wrong (since 6.17, 5d87e96a49dd).
pub const CHECKSUM_COMPLETE: u32 = 1 << 2;

/// The `test` member of `union bpf_attr`, up to the flags.
#[repr(C)]
#[derive(Default)]
struct PacketAttributes {
    start: TestAttributes,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// Runs a TC program once on `frame`, whose link header is Ethernet.
pub fn run_packet(program: BorrowedFd<'_>, frame: &[u8], flags: u32) -> io::Result<PacketRun> {
    let mut out = vec![0; frame.len() + 256];
    let mut attributes = PacketAttributes {
        start: TestAttributes {
            program_fd: number(program),
            data_size_in: length(frame),
            data_size_out: length(out.as_slice()),
            data_in: frame.as_ptr() as u64,
            data_out: out.as_mut_ptr() as u64,
            repeat: 1,
            ..TestAttributes::default()
        },
        flags,
        ..PacketAttributes::default()
    };
    // SAFETY: frame and buffer outlive the call and are as long as said.
    unsafe { bpf(Command::ProgTestRun, &mut attributes) }?;
    out.truncate(attributes.start.data_size_out as usize);
    Ok(PacketRun { verdict: attributes.start.return_value.cast_signed(), frame: out })
}

/// The beginning of the `BPF_PROG_LOAD` member of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// Whether the helper that changes transport checksums knows `BPF_F_IPV6` (since 6.16, ead7f9b8de65, and later releases
/// of older series): really asks it.
pub(crate) fn knows_ipv6_checksums() -> bool {
    const SCHED_CLS: u32 = 3;
    /// `offset = 30, from = 0, to = 1, flags = PSEUDO_HDR | IPV6; return l4_csum_replace(...)`.
    const INSTRUCTIONS: [u64; 6] = [
        0x0000_001e_0000_02b7,
        0x0000_0000_0000_03b7,
        0x0000_0001_0000_04b7,
        0x0000_0090_0000_05b7,
        0x0000_000b_0000_0085,
        0x0000_0000_0000_0095,
    ];
    let mut attributes = LoadAttributes {
        program_type: SCHED_CLS,
        instruction_count: u32::try_from(INSTRUCTIONS.len()).unwrap_or(0),
        instructions: INSTRUCTIONS.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..LoadAttributes::default()
    };
    // SAFETY: the instructions and the license outlive the call.
    let program = unsafe { bpf_descriptor(Command::ProgLoad, &mut attributes) };
    program.is_ok_and(|program| run_packet(program.as_fd(), &[0; 64], 0).is_ok_and(|run| run.verdict == 0))
}
