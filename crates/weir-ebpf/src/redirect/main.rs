//! The `redirect` object: sends connections to a listener to one of its backends, and the answers back.
//!
//! Attaches to TC ingress and egress, by TCX or clsact; needs 5.10. Whatever it is not sure of goes on unchanged and is
//! counted. Programs return "unspecified", which hands the packet to whatever comes next.
//!
//! `fast` is the path of nearly all packets: those that nothing here is interested in, and those of connections that are
//! under way. `slow` is everything else, written so that any packet goes through it: `choose` finds a backend, `enter`
//! makes the two entries of a connection in the table (`connections`), `icmp` and `fragment` do what their names say, `reset` refuses, `write` carries
//! out what `weir_packet::rewrite` plans. `local` is for sockets of this host, at a cgroup; needs 5.14.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the BPF target has no atomic types")]

mod choose;
#[path = "../flow/clock.rs"]
mod clock;
mod connections;
mod count;
mod enter;
mod fast;
mod fragment;
mod icmp;
mod keys;
mod local;
mod maps;
mod reset;
mod route;
mod slow;
mod write;

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use weir_ebpf::skb::Skb;
use weir_packet::Link;

use crate::keys::Way;

/// Packets of clients of this host that leave by an Ethernet device.
#[classifier]
fn weir_uplink_l2(context: TcContext) -> i32 {
    fast::packet(Skb::new(context.skb.skb), Link::Ethernet, Way::Uplink)
}

/// Packets of clients of this host that leave by a device without link headers.
#[classifier]
fn weir_uplink_l3(context: TcContext) -> i32 {
    fast::packet(Skb::new(context.skb.skb), Link::Ip, Way::Uplink)
}

/// Packets of clients behind an Ethernet device that come in.
#[classifier]
fn weir_client_l2(context: TcContext) -> i32 {
    fast::packet(Skb::new(context.skb.skb), Link::Ethernet, Way::Client)
}

/// Packets of clients behind a device without link headers that come in.
#[classifier]
fn weir_client_l3(context: TcContext) -> i32 {
    fast::packet(Skb::new(context.skb.skb), Link::Ip, Way::Client)
}

/// Packets from backends, on an Ethernet device.
#[classifier]
fn weir_answer_l2(context: TcContext) -> i32 {
    fast::packet(Skb::new(context.skb.skb), Link::Ethernet, Way::Answer)
}

/// Packets from backends, on a device without link headers.
#[classifier]
fn weir_answer_l3(context: TcContext) -> i32 {
    fast::packet(Skb::new(context.skb.skb), Link::Ip, Way::Answer)
}

/// Does nothing; what tests and benchmarks compare with.
#[classifier]
fn weir_empty(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
