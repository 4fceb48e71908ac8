//! The `flow` object: counts every packet of the interfaces it is attached to, by flow.
//!
//! Attaches to TC ingress and egress (by TCX since 6.6, by clsact before) or, as the alternative hook, to AF_PACKET
//! sockets. Needs 5.10. Never changes or drops a packet: TC programs return "unspecified", which hands the packet to
//! whatever comes next, socket filters return 0, which copies nothing to user space.
//!
//! `account` is the path of a packet, `table` the flow table, `entry` one entry of it, `filter` the verdict on a new
//! flow, `dns` the way of DNS messages to user space, `maps` what is shared with user space.

#![no_std]
#![no_main]

mod account;
mod clock;
mod dns;
mod entry;
mod filter;
mod maps;
mod table;

use aya_ebpf::{
    bindings::TC_ACT_UNSPEC,
    macros::{classifier, socket_filter},
    programs::{SkBuffContext, TcContext},
};
use weir_ebpf::skb::Skb;
use weir_packet::Link;

use crate::{
    account::Direction,
    maps::{JUMP_L2, JUMP_L3, JUMPS},
};

/// Value of `pkt_type` for packets on their way out (`PACKET_OUTGOING`).
const PACKET_OUTGOING: u32 = 4;

/// Counts what an Ethernet device receives.
#[classifier]
fn weir_ingress_l2(context: TcContext) -> i32 {
    account::packet(Skb::new(context.skb.skb), Link::Ethernet, Direction::Ingress);
    TC_ACT_UNSPEC
}

/// Counts what an Ethernet device sends.
#[classifier]
fn weir_egress_l2(context: TcContext) -> i32 {
    account::packet(Skb::new(context.skb.skb), Link::Ethernet, Direction::Egress);
    TC_ACT_UNSPEC
}

/// Counts what a device without link headers receives.
#[classifier]
fn weir_ingress_l3(context: TcContext) -> i32 {
    account::packet(Skb::new(context.skb.skb), Link::Ip, Direction::Ingress);
    TC_ACT_UNSPEC
}

/// Counts what a device without link headers sends.
#[classifier]
fn weir_egress_l3(context: TcContext) -> i32 {
    account::packet(Skb::new(context.skb.skb), Link::Ip, Direction::Egress);
    TC_ACT_UNSPEC
}

/// Counts what passes an AF_PACKET socket on an Ethernet device.
#[socket_filter]
fn weir_socket_l2(context: SkBuffContext) -> i64 {
    socket(Skb::new(context.skb.skb), Link::Ethernet)
}

/// Counts what passes an AF_PACKET socket on a device without link headers.
#[socket_filter]
fn weir_socket_l3(context: SkBuffContext) -> i64 {
    socket(Skb::new(context.skb.skb), Link::Ip)
}

/// What is attached to an AF_PACKET socket on an Ethernet device: jumps to [`weir_socket_l2`].
#[socket_filter]
fn weir_jump_l2(context: SkBuffContext) -> i64 {
    jump(&context, JUMP_L2)
}

/// What is attached to an AF_PACKET socket on a device without link headers: jumps to [`weir_socket_l3`].
#[socket_filter]
fn weir_jump_l3(context: SkBuffContext) -> i64 {
    jump(&context, JUMP_L3)
}

/// The length of an attached filter counts against the socket's option memory (`net.core.optmem_max`, 20 KiB before
/// 6.7), and the counting program is longer than that. The length of what it jumps to does not.
#[inline(always)]
fn jump(context: &SkBuffContext, index: u32) -> i64 {
    // SAFETY: nothing here needs dropping. The loader fills the table before it attaches anything.
    unsafe { JUMPS.tail_call(context, index) };
    0
}

#[inline(always)]
fn socket(skb: Skb, link: Link) -> i64 {
    let direction = if skb.packet_type() == PACKET_OUTGOING { Direction::Egress } else { Direction::Ingress };
    account::tapped_packet(skb, link, direction);
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
