//! A call of a socket, with an address in it that a program may change.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::SockAddrContext,
};
use weir_common::redirect::SocketFlows;

use crate::{fast::MAPPED, maps::LOCAL_SOCKETS};

/// Places of the fields in `struct bpf_sock_addr`, in words of four bytes.
const IPV4: usize = 1;
const IPV6: usize = 2;
const PORT: usize = 6;
const PROTOCOL: usize = 9;

/// The call. IPv4 addresses may be mapped into IPv6.
pub(super) struct Call {
    context: SockAddrContext,
    is_ipv6: bool,
}

impl Call {
    #[inline(always)]
    pub(super) const fn new(context: SockAddrContext, is_ipv6: bool) -> Self {
        Self { context, is_ipv6 }
    }

    #[inline(always)]
    pub(super) fn protocol(&self) -> u8 {
        self.get(PROTOCOL) as u8
    }

    #[inline(always)]
    pub(super) fn port(&self) -> u16 {
        u16::from_be(self.get(PORT) as u16)
    }

    #[inline(always)]
    pub(super) fn address(&self) -> [u64; 2] {
        let part = |at| u64::from(u32::from_be(self.get(at)));
        if self.is_ipv6 {
            [part(IPV6) << 32 | part(IPV6 + 1), part(IPV6 + 2) << 32 | part(IPV6 + 3)]
        } else {
            [0, MAPPED | part(IPV4)]
        }
    }

    /// Puts another address into the call.
    #[inline(always)]
    pub(super) fn set(&self, address: [u64; 2], port: u16) {
        let [high, low] = address;
        self.put(PORT, u32::from(port.to_be()));
        if self.is_ipv6 {
            self.put(IPV6, ((high >> 32) as u32).to_be());
            self.put(IPV6 + 1, (high as u32).to_be());
            self.put(IPV6 + 2, ((low >> 32) as u32).to_be());
            self.put(IPV6 + 3, (low as u32).to_be());
        } else {
            self.put(IPV4, (low as u32).to_be());
        }
    }

    /// Cookie of the network namespace.
    #[inline(always)]
    pub(super) fn netns(&self) -> u64 {
        // SAFETY: the context is that of this program.
        unsafe { bpf_get_netns_cookie(self.context.as_ptr()) }
    }

    /// Cookie of the socket.
    #[inline(always)]
    pub(super) fn socket(&self) -> u64 {
        // SAFETY: the context is that of this program.
        unsafe { bpf_get_socket_cookie(self.context.as_ptr()) }
    }

    /// What the socket remembers; `None` if that is nothing.
    #[inline(always)]
    pub(super) fn flows(&self) -> Option<&'static mut SocketFlows> {
        // SAFETY: the context is that of this program.
        let flows = unsafe { LOCAL_SOCKETS.get_ptr_mut(&self.context) };
        // SAFETY: a valid value. The kernel holds the socket while it calls a program for it.
        unsafe { flows.as_mut() }
    }

    /// The same; what is not there yet is made, all zero. `None` if there is no room.
    #[inline(always)]
    pub(super) fn flows_or_new(&self) -> Option<&'static mut SocketFlows> {
        // SAFETY: the context is that of this program.
        let flows = unsafe { LOCAL_SOCKETS.get_or_insert_ptr_mut(&self.context, None) };
        // SAFETY: as above.
        unsafe { flows.as_mut() }
    }

    #[inline(always)]
    fn get(&self, at: usize) -> u32 {
        let field = self.context.sock_addr.cast::<u32>().wrapping_add(at);
        // SAFETY: a field of the context, which the kernel lets programs read.
        unsafe { field.read_volatile() }
    }

    #[inline(always)]
    fn put(&self, at: usize, value: u32) {
        let field = self.context.sock_addr.cast::<u32>().wrapping_add(at);
        // SAFETY: a field of the context, which the kernel lets these programs write.
        unsafe { field.write_volatile(value) };
    }
}
