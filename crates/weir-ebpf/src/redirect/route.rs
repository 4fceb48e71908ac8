//! Where a packet leaves for that was routed before it got another destination (clients of this host alone).
//!
//! Decided once per connection and again now and then: if the kernel's tables say that the same neighbour leads to the
//! backend, the packet goes on as it is. Otherwise, or if they cannot be asked, the kernel routes it anew.

use core::hint::black_box;

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC, bpf_fib_lookup as FibQuery},
    helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh},
};
use weir_common::redirect::{ROUTE_INTERFACE, ROUTE_NEIGHBOUR, ROUTE_UNCHANGED};
use weir_ebpf::skb::Skb;

use crate::{keys::Way, maps::scratch};

/// Put into `tc_index` of what was translated, so that the program that meets it on its way out lets it go: the same one
/// where it is routed anew, or that of another interface.
pub(crate) const MARK: u32 = 0x5752;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Answers to the query: `BPF_FIB_LKUP_RET_SUCCESS` and `_NO_NEIGH`.
const SUCCESS: i64 = 0;
const NO_NEIGHBOUR: i64 = 7;

/// Its length.
#[expect(clippy::cast_possible_wrap, reason = "64")]
const QUERY_BYTES: i32 = size_of::<FibQuery>() as i32;

/// Says that a packet was translated.
#[inline(always)]
fn mark(skb: Skb) {
    skb.set_tc_index(MARK);
}

/// What becomes of a translated packet.
#[inline(always)]
pub(crate) fn leave(skb: Skb, way: Way, route: u8, interface: u32) -> i32 {
    if way.is_forward() {
        mark(skb);
    }
    if way == Way::Uplink { follow(skb, route, interface) } else { TC_ACT_UNSPEC }
}

/// Lets a packet go where it now belongs.
#[inline(always)]
fn follow(skb: Skb, route: u8, interface: u32) -> i32 {
    if route == ROUTE_UNCHANGED {
        return TC_ACT_UNSPEC;
    }
    // Loaded in any case: the compiler would choose between two addresses, one of them within the context, which the
    // verifier refuses to see moved.
    let here = black_box(skb.ifindex());
    let interface = if route == ROUTE_INTERFACE { interface } else { here };
    // SAFETY: no parameters are passed.
    (unsafe { bpf_redirect_neigh(interface, core::ptr::null_mut(), 0, 0) }) as i32
}

/// Finds out how the packet in the scratch memory gets to the backend in the value there, and writes it down there.
/// Returns the route.
///
/// To be called before the packet is written: compares with the neighbour that it has now.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_route(context: *mut __sk_buff, is_ip_device: u64) -> u64 {
    let skb = Skb::new(context);
    let Some(scratch) = scratch() else { return 0 };
    scratch.value.interface = 0;
    scratch.value.route = ROUTE_UNCHANGED;
    if is_ip_device != 0 {
        return 0;
    }
    let here = skb.ifindex();
    // SAFETY: all fields are integers.
    let mut query: FibQuery = unsafe { core::mem::zeroed() };
    query.family = if scratch.layout.is_ipv6 != 0 { AF_INET6 } else { AF_INET };
    query.l4_protocol = scratch.layout.protocol;
    query.ifindex = here;
    if scratch.layout.is_ipv6 != 0 {
        query.__bindgen_anon_3.ipv6_src = halves(scratch.layout.source);
        query.__bindgen_anon_4.ipv6_dst = halves(scratch.value.address);
    } else {
        query.__bindgen_anon_3.ipv4_src = (scratch.layout.source[1] as u32).to_be();
        query.__bindgen_anon_4.ipv4_dst = (scratch.value.address[1] as u32).to_be();
    }
    // SAFETY: the query is as long as said.
    let outcome = unsafe { bpf_fib_lookup(skb.as_ptr().cast(), &raw mut query, QUERY_BYTES, 0) };
    if (outcome == SUCCESS || outcome == NO_NEIGHBOUR) && query.ifindex != here {
        scratch.value.interface = query.ifindex;
        scratch.value.route = ROUTE_INTERFACE;
        return 2;
    }
    let mut is_same = outcome == SUCCESS;
    for index in 0..6 {
        is_same &= scratch.headers.bytes[index] == query.dmac[index];
    }
    if is_same {
        return 0;
    }
    scratch.value.route = ROUTE_NEIGHBOUR;
    1
}

/// An address as it lies in memory.
#[inline(always)]
fn halves(address: [u64; 2]) -> [u32; 4] {
    let (high, low) = (address[0].to_be(), address[1].to_be());
    [high as u32, (high >> 32) as u32, low as u32, (low >> 32) as u32]
}
