//! The `packets` object: copies the first bytes of every packet that meets a filter into a ring buffer.
//!
//! Attaches to TC ingress and egress (by TCX since 6.6, by clsact before). Needs 5.8 for the ring buffer. Never changes
//! or drops a packet: programs return "unspecified", which hands the packet to whatever comes next.
//!
//! `capture` is the path of a packet, `record` puts one into the ring, `maps` is what is shared with user space.

#![no_std]
#![no_main]

mod capture;
mod maps;
mod record;

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use weir_ebpf::skb::Skb;
use weir_packet::Link;

use crate::capture::{EGRESS, INGRESS};

/// Captures what an Ethernet device receives.
#[classifier]
fn weir_ingress_l2(context: TcContext) -> i32 {
    capture::packet(Skb::new(context.skb.skb), Link::Ethernet, INGRESS);
    TC_ACT_UNSPEC
}

/// Captures what an Ethernet device sends.
#[classifier]
fn weir_egress_l2(context: TcContext) -> i32 {
    capture::packet(Skb::new(context.skb.skb), Link::Ethernet, EGRESS);
    TC_ACT_UNSPEC
}

/// Captures what a device without link headers receives.
#[classifier]
fn weir_ingress_l3(context: TcContext) -> i32 {
    capture::packet(Skb::new(context.skb.skb), Link::Ip, INGRESS);
    TC_ACT_UNSPEC
}

/// Captures what a device without link headers sends.
#[classifier]
fn weir_egress_l3(context: TcContext) -> i32 {
    capture::packet(Skb::new(context.skb.skb), Link::Ip, EGRESS);
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
