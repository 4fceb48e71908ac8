//! Test runs: the `patch` program, the sequence of flows it writes, and the program it goes on with.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use anyhow::{Context as _, bail};
use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Array, Map, MapData},
    programs::SchedClassifier,
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use weir_datapath::selfcheck;

use crate::{frame::Family, sequence::STEPS};

static PATCH: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench_patch"));

/// Numbers in one element of the sequence, `CHUNK` of the `patch` program.
const CHUNK: usize = 4096;

const MAP_UPDATE: libc::c_long = 2;

/// A packet with a changing flow number, and a program to be run on it.
pub(crate) struct Stage {
    patch: OwnedFd,
    /// Does nothing; its cost is subtracted.
    pub(crate) empty: OwnedFd,
    sequence: Array<MapData, [u16; CHUNK]>,
    position: Array<MapData, u32>,
    subject: OwnedFd,
    frame: Vec<u8>,
    _object: Ebpf,
}

/// Loads an object file of the benchmark.
pub(crate) fn check_object(object: &[u8]) -> anyhow::Result<()> {
    if object.is_empty() {
        bail!("built without kernel programs (WEIR_SKIP_EBPF=1): build it without that variable");
    }
    Ok(())
}

/// Loads a TC program and returns a descriptor of it.
pub(crate) fn program(ebpf: &mut Ebpf, name: &'static str) -> anyhow::Result<OwnedFd> {
    let program: &mut SchedClassifier = ebpf.program_mut(name).context(name)?.try_into()?;
    program.load().with_context(|| format!("the kernel refuses {name}"))?;
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}

/// Keeps the calling thread on one CPU, so that runs share caches.
pub(crate) fn stay_on_one_cpu() -> anyhow::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot stay on one CPU")
}

impl Stage {
    /// Prepares packets of one family.
    pub(crate) fn new(family: Family) -> anyhow::Result<Self> {
        check_object(PATCH)?;
        let (offset, width, base) = family.source_word();
        let mut object = EbpfLoader::new()
            .override_global("OFFSET", &offset, true)
            .override_global("WIDTH", &width, true)
            .override_global("BASE", &base, true)
            .load(PATCH)?;
        let patch = program(&mut object, "weir_bench_patch")?;
        let empty = program(&mut object, "weir_bench_empty")?;
        let mut map = |name: &'static str| object.take_map(name).context(name);
        let Map::ProgramArray(subject) = map("SUBJECT")? else { bail!("SUBJECT is no program array") };
        Ok(Self {
            patch,
            empty,
            sequence: map("SEQUENCE")?.try_into()?,
            position: map("POSITION")?.try_into()?,
            subject: subject.fd().as_fd().try_clone_to_owned()?,
            frame: family.frame(),
            _object: object,
        })
    }

    /// Sets the order of flows.
    pub(crate) fn play(&mut self, numbers: &[u16]) -> anyhow::Result<()> {
        assert_eq!(numbers.len(), STEPS, "a sequence has a fixed length");
        for (index, chunk) in (0..).zip(numbers.chunks_exact(CHUNK)) {
            let chunk: &[u16; CHUNK] = chunk.try_into().expect("chunks are whole");
            self.sequence.set(index, chunk, 0)?;
        }
        Ok(())
    }

    /// Runs `program` on the first `repeat` packets of the sequence (again and again, if it is shorter). Returns CPU
    /// nanoseconds per packet, the cost of the test run itself included.
    pub(crate) fn run(&mut self, program: BorrowedFd<'_>, repeat: u32) -> anyhow::Result<f64> {
        update_program(self.subject.as_fd(), program).context("cannot set the program under test")?;
        self.position.set(0, 0, 0)?;
        // The time of this thread, not the wall: whatever else runs on this CPU does not count.
        let before = thread_time()?;
        selfcheck::test_run(self.patch.as_fd(), &self.frame, repeat).context("the test run failed")?;
        let after = thread_time()?;
        Ok((after - before) / f64::from(repeat))
    }
}

/// Nanoseconds of processor time of the calling thread.
pub(crate) fn thread_time() -> anyhow::Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    #[expect(clippy::cast_precision_loss, reason = "some seconds in nanoseconds")]
    Ok(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}

/// The `elem` member of `union bpf_attr`.
#[repr(C)]
struct ElementAttributes {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn update_program(array: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let (key, value) = (0u32, program.as_raw_fd());
    let attributes = ElementAttributes {
        map_fd: array.as_raw_fd().cast_unsigned(),
        reserved: 0,
        key: &raw const key as u64,
        value: &raw const value as u64,
        flags: 0,
    };
    // SAFETY: the key and the value outlive the call.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, MAP_UPDATE, &raw const attributes, size_of::<ElementAttributes>())
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
