//! Sockets of this host that call a listener: they are led to a backend before there is a packet.
//!
//! For what packets cannot be redirected for: listeners at addresses of this host, and, where an interface redirects packets of
//! this host, backends on it. Everything else is left to the programs of interfaces. The socket
//! remembers which backend stands for which listener, so that answers (`recvmsg`) and `getpeername` name the listener.
//!
//! These programs run in processes, which may be interrupted: they use no scratch memory.

mod call;

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use weir_common::redirect::{
    ACTION_PASS, ACTION_RESET, AFFINITY_OWN, AffinityKey, LocalConfig, OwnAddress, PORTS_FORWARD_TCP,
    PORTS_FORWARD_UDP, PORTS_REVERSE_UDP, Reason, RuleValue, SOCKET_FLOWS, STANDING_DRAINING, STANDING_UP,
    SocketFlow,
};
use weir_packet::protocol;

use self::call::Call;
use crate::{
    choose, count, fast,
    maps::{BACKENDS, CONFIG, LOCAL, OWN_ADDRESSES, RULES},
};

/// The call goes on.
const ALLOW: i32 = 1;
/// It fails: "operation not permitted".
const DENY: i32 = 0;

/// A socket is connected, IPv4.
#[cgroup_sock_addr(connect4)]
fn weir_connect4(context: SockAddrContext) -> i32 {
    lead(&Call::new(context, false), true)
}

/// A socket is connected, IPv6.
#[cgroup_sock_addr(connect6)]
fn weir_connect6(context: SockAddrContext) -> i32 {
    lead(&Call::new(context, true), true)
}

/// A datagram is sent to an address, IPv4.
#[cgroup_sock_addr(sendmsg4)]
fn weir_sendmsg4(context: SockAddrContext) -> i32 {
    lead(&Call::new(context, false), false)
}

/// A datagram is sent to an address, IPv6.
#[cgroup_sock_addr(sendmsg6)]
fn weir_sendmsg6(context: SockAddrContext) -> i32 {
    lead(&Call::new(context, true), false)
}

/// A process learns whom a datagram is from, IPv4.
#[cgroup_sock_addr(recvmsg4)]
fn weir_recvmsg4(context: SockAddrContext) -> i32 {
    answer(&Call::new(context, false));
    ALLOW
}

/// A process learns whom a datagram is from, IPv6.
#[cgroup_sock_addr(recvmsg6)]
fn weir_recvmsg6(context: SockAddrContext) -> i32 {
    answer(&Call::new(context, true));
    ALLOW
}

/// A process learns whom a socket is connected to, IPv4.
#[cgroup_sock_addr(getpeername4)]
fn weir_peername4(context: SockAddrContext) -> i32 {
    name_listener(&Call::new(context, false));
    ALLOW
}

/// A process learns whom a socket is connected to, IPv6.
#[cgroup_sock_addr(getpeername6)]
fn weir_peername6(context: SockAddrContext) -> i32 {
    name_listener(&Call::new(context, true));
    ALLOW
}

/// Leads a call to a backend, if it is for a listener.
#[inline(always)]
fn lead(call: &Call, connects: bool) -> i32 {
    let protocol = call.protocol();
    let bitmap = match protocol {
        protocol::TCP => PORTS_FORWARD_TCP,
        protocol::UDP => PORTS_FORWARD_UDP,
        _ => return ALLOW,
    };
    let port = call.port();
    if port == 0 || !fast::is_port_of_interest(bitmap, u32::from(port)) {
        return ALLOW;
    }
    let Some(config) = LOCAL.get(0) else { return ALLOW };
    if config.netns == 0 || config.netns != call.netns() {
        return ALLOW;
    }
    let address = call.address();
    let is_ipv6 = u8::from(address[0] != 0 || address[1] >> 32 != fast::MAPPED >> 32);
    let number = choose::rule_at(address, port, protocol, is_ipv6);
    if number == 0 {
        forget(call, address, port, connects);
        return ALLOW;
    }
    if protocol == protocol::UDP && again(call, address, port, number, connects) {
        return ALLOW;
    }
    let is_connected = u32::from(connects);
    let wanted = SocketFlow { listener: address, listener_port: port, rule: number, is_connected, ..NOTHING };
    begin(call, wanted, protocol == protocol::UDP, is_ipv6, config)
}

const NOTHING: SocketFlow = SocketFlow {
    listener: [0; 2],
    backend: [0; 2],
    listener_port: 0,
    backend_port: 0,
    rule: 0,
    number: 0,
    is_connected: 0,
};

/// Leads a call where the socket was led before, unless that backend is gone. Says whether it did.
#[inline(always)]
fn again(call: &Call, address: [u64; 2], port: u16, rule: u32, connects: bool) -> bool {
    let Some(flows) = call.flows() else { return false };
    for index in 0..SOCKET_FLOWS {
        let flow = &mut flows.flows[index];
        let is_same = flow.listener[0] == address[0]
            && flow.listener[1] == address[1]
            && flow.listener_port == port
            && flow.backend_port != 0
            && flow.rule == rule;
        if is_same && is_there(flow) {
            if connects {
                flow.is_connected = 1;
            }
            call.set(flow.backend, flow.backend_port);
            return true;
        }
    }
    false
}

/// Whether the backend of a flow still answers.
#[inline(always)]
fn is_there(flow: &SocketFlow) -> bool {
    let Some(backend) = BACKENDS.get(flow.number) else { return false };
    (backend.standing == STANDING_UP || backend.standing == STANDING_DRAINING)
        && backend.rule == flow.rule
        && (backend.port == 0 || backend.port == flow.backend_port)
        && backend.address[0] == flow.backend[0]
        && backend.address[1] == flow.backend[1]
}

/// The socket talks to a backend itself: its answers are those of the backend.
///
/// Sending on a connected socket may look the same, if its address is an IPv4 one mapped into IPv6.
#[inline(always)]
fn forget(call: &Call, address: [u64; 2], port: u16, connects: bool) {
    let Some(flows) = call.flows() else { return };
    for index in 0..SOCKET_FLOWS {
        let flow = &mut flows.flows[index];
        if is_from(flow, address, port) && (connects || flow.is_connected == 0) {
            flow.backend_port = 0;
        }
    }
}

/// Whether a flow's backend is this.
#[inline(always)]
fn is_from(flow: &SocketFlow, address: [u64; 2], port: u16) -> bool {
    flow.backend_port == port && flow.backend[0] == address[0] && flow.backend[1] == address[1]
}

/// Chooses a backend and leads the call there, if that is for these programs to do.
#[inline(always)]
fn begin(call: &Call, mut flow: SocketFlow, is_udp: bool, is_ipv6: u8, config: &LocalConfig) -> i32 {
    let number = flow.rule;
    // SAFETY: the entry is copied at once.
    let Some(rule) = (unsafe { RULES.get(number) }) else {
        count::reason(number, Reason::Vanished);
        return ALLOW;
    };
    let rule = *rule;
    let protocol = if is_udp { protocol::UDP } else { protocol::TCP };
    if !choose::is_for(&rule, number, flow.listener, flow.listener_port, protocol, is_ipv6) {
        // The kernel gave its memory to another one while it was read.
        count::reason(number, Reason::Vanished);
        return ALLOW;
    }
    let is_own = is_own(flow.listener, is_ipv6);
    if !is_own && config.has_uplink == 0 {
        return ALLOW;
    }
    if is_own && is_udp && rule.first_port != rule.last_port {
        // A server on this host that answers a client on this host: the client's port is not what is listened on.
        return ALLOW;
    }
    let chosen = choose(call, &rule, &flow, is_ipv6);
    if chosen == 0 {
        // Otherwise there will be a packet, and a program that knows what to do with it.
        return if is_own { without_backend(&rule, number, is_udp) } else { ALLOW };
    }
    let Some(backend) = BACKENDS.get(chosen) else { return ALLOW };
    if backend.is_local == 0 && !is_own {
        return ALLOW;
    }
    if rule.new_per_second != 0 && !choose::is_within_rate(number, rule.new_per_second) {
        count::reason(number, Reason::RateLimited);
        return DENY;
    }
    flow.backend = backend.address;
    flow.backend_port = if backend.port == 0 { flow.listener_port } else { backend.port };
    flow.number = chosen;
    if !remember(call, &flow, is_udp) {
        count::reason(number, Reason::WriteFailed);
        return DENY;
    }
    count::opened_here(chosen);
    call.set(flow.backend, flow.backend_port);
    ALLOW
}

/// Whether packets to an address never leave this host.
#[inline(always)]
fn is_own(address: [u64; 2], is_ipv6: u8) -> bool {
    if is_ipv6 == 0 && (address[1] as u32) >> 24 == 127 {
        return true;
    }
    let key = OwnAddress { address, is_ipv6: u64::from(is_ipv6) };
    // SAFETY: nothing of the entry is read.
    unsafe { OWN_ADDRESSES.get(&key) }.is_some()
}

/// What becomes of a call that no backend takes and that no program of an interface will see.
#[inline(always)]
fn without_backend(rule: &RuleValue, number: u32, is_udp: bool) -> i32 {
    let (reason, outcome) = match rule.on_empty {
        ACTION_PASS => (Reason::NoBackendPassed, ALLOW),
        ACTION_RESET if !is_udp => (Reason::NoBackendReset, DENY),
        _ => (Reason::NoBackendDropped, DENY),
    };
    count::reason(number, reason);
    outcome
}

/// A backend for a new flow, or 0: the one that this host keeps, or one from the table.
#[inline(always)]
fn choose(call: &Call, rule: &RuleValue, flow: &SocketFlow, is_ipv6: u8) -> u32 {
    let number = flow.rule;
    // The address of the socket is not known yet: this host is one client.
    let own = AffinityKey { client: [0; 2], rule: number, is_ipv6: AFFINITY_OWN };
    let has_affinity = rule.affinity != 0;
    if has_affinity
        && let Some(kept) = choose::kept_by(own, rule.affinity)
        && takes(number, kept, is_ipv6)
    {
        choose::keep(own, kept);
        return kept;
    }
    let seed = CONFIG.get(0).map_or(0, |config| config.seed);
    let mut hash = choose::mix(seed, u64::from(number));
    if !has_affinity {
        hash = choose::mix(
            choose::mix(hash, flow.listener[1]),
            call.socket() << 16 | u64::from(flow.listener_port),
        );
    }
    let chosen = from_table(rule, number, hash, is_ipv6);
    if has_affinity && chosen != 0 {
        choose::keep(own, chosen);
    }
    chosen
}

/// A backend from the table of a rule, or 0.
///
/// A function of its own, so that the verifier looks at it once for each program and not at each of its ends.
#[inline(never)]
fn from_table(rule: &RuleValue, number: u32, mut hash: u64, is_ipv6: u8) -> u32 {
    match rule.table_length {
        0 => return 0,
        1 => return if takes(number, rule.backend, is_ipv6) { rule.backend } else { 0 },
        _ => {}
    }
    for _ in 0..choose::ATTEMPTS {
        let candidate = choose::candidate(rule, hash);
        if takes(number, candidate, is_ipv6) {
            return candidate;
        }
        hash = choose::mix(hash, 1);
    }
    0
}

/// Whether a backend takes something new.
#[inline(always)]
fn takes(rule: u32, number: u32, is_ipv6: u8) -> bool {
    let Some(backend) = BACKENDS.get(number) else { return false };
    backend.standing == STANDING_UP && backend.rule == rule && backend.is_ipv6 == is_ipv6
}

/// Writes a flow down with its socket. A TCP socket has one, others have the last few. Says whether there was room.
#[inline(always)]
fn remember(call: &Call, flow: &SocketFlow, is_udp: bool) -> bool {
    let Some(flows) = call.flows_or_new() else { return false };
    if !is_udp {
        flows.flows[0] = *flow;
        return true;
    }
    let next = flows.next as usize % SOCKET_FLOWS;
    let mut place = SOCKET_FLOWS;
    for index in 0..SOCKET_FLOWS {
        let there = &flows.flows[index];
        // Answers of one backend can only be one listener's, that of the last datagram.
        let is_same = is_from(there, flow.backend, flow.backend_port)
            || there.listener[0] == flow.listener[0]
                && there.listener[1] == flow.listener[1]
                && there.listener_port == flow.listener_port;
        if is_same || (there.backend_port == 0 && place == SOCKET_FLOWS) {
            place = index;
            if is_same {
                break;
            }
        }
    }
    if place >= SOCKET_FLOWS {
        place = next;
        flows.next = flows.next.wrapping_add(1);
    }
    flows.flows[place % SOCKET_FLOWS] = *flow;
    true
}

/// The datagram is from a backend: then it is from the listener.
#[inline(always)]
fn answer(call: &Call) {
    if fast::is_port_of_interest(PORTS_REVERSE_UDP, u32::from(call.port())) {
        name_listener(call);
    }
}

/// Puts the listener in the place of the backend.
#[inline(always)]
fn name_listener(call: &Call) {
    let Some(flows) = call.flows() else { return };
    let (address, port) = (call.address(), call.port());
    for index in 0..SOCKET_FLOWS {
        let flow = &flows.flows[index];
        if is_from(flow, address, port) && port != 0 {
            call.set(flow.listener, flow.listener_port);
            return;
        }
    }
}
