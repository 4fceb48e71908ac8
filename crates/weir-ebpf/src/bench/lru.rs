//! A reference for benchmarks: the counting program with another table, an LRU hash map per CPU and a fine clock.
//!
//! Parser, ledger and verdict are the source files of the `flow` object; `lru_table` takes the place of its table.

#![no_std]
#![no_main]
#![expect(
    dead_code,
    reason = "the shared files serve the slots and packet sockets too, which are not used here"
)]

#[path = "../flow/account.rs"]
mod account;
#[path = "../flow/dns.rs"]
mod dns;
#[path = "../flow/entry.rs"]
mod entry;
#[path = "../flow/filter.rs"]
mod filter;
mod key;
#[path = "../flow/maps.rs"]
mod maps;
#[path = "lru_table.rs"]
mod table;

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use weir_ebpf::skb::Skb;
use weir_packet::Link;

/// Counts what an Ethernet device receives.
#[classifier]
fn weir_bench_lru(context: TcContext) -> i32 {
    account::packet(Skb::new(context.skb.skb), Link::Ethernet, account::Direction::Ingress);
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
