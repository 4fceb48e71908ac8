//! As much traffic as the machine makes, on every CPU, for a given time, with exact counts.

use std::{
    net::UdpSocket,
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, Scope, ScopedJoinHandle},
};

use crate::{
    VethEnd,
    traffic::{Sent, UdpFlow},
};

/// Datagrams handed to the kernel in one system call.
const BATCH: u32 = 32;

/// Flows of each CPU.
const FLOWS: usize = 16;

/// Starts one sender on each CPU; each sends until `stop` is set, and returns what it sent.
pub fn udp<'scope>(
    scope: &'scope Scope<'scope, '_>,
    (from, to): (&'scope VethEnd, &'scope VethEnd),
    ipv6: bool,
    payload: usize,
    stop: &'scope AtomicBool,
) -> Vec<ScopedJoinHandle<'scope, Sent>> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    (0..cpus)
        .map(|cpu| {
            scope.spawn(move || {
                pin_to(cpu);
                let flows: Vec<UdpFlow> = (0..FLOWS).map(|_| UdpFlow::open(from, to, ipv6)).collect();
                let buffer = vec![0x5a; payload];
                let mut sent = Sent::default();
                while !stop.load(Ordering::Relaxed) {
                    for flow in &flows {
                        sent.datagrams += send_batch(&flow.sender, &buffer);
                    }
                }
                sent.payload_bytes = sent.datagrams * payload as u64;
                sent
            })
        })
        .collect()
}

/// Sends up to [`BATCH`] copies and returns how many the kernel took.
fn send_batch(socket: &UdpSocket, buffer: &[u8]) -> u64 {
    let mut part = libc::iovec { iov_base: buffer.as_ptr().cast_mut().cast(), iov_len: buffer.len() };
    // SAFETY: all zeroes is a valid message header.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = &raw mut part;
    message.msg_hdr.msg_iovlen = 1;
    let mut messages = [message; BATCH as usize];
    // SAFETY: the headers point to a part and a buffer that outlive the call.
    let taken = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BATCH, 0) };
    u64::try_from(taken).unwrap_or_else(|_| panic!("sendmmsg: {}", std::io::Error::last_os_error()))
}

/// Keeps the calling thread on one CPU, where the kernel has it.
pub fn pin_to(cpu: usize) {
    // SAFETY: all zeroes is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the index is far below the size of the set on any machine that runs tests.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set outlives the call and has the size given. A CPU that may not be used is no harm: the thread
    // then runs wherever the kernel puts it.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}
