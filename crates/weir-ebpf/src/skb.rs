//! Access to a packet (`__sk_buff`): its metadata, and its first bytes copied into scratch memory.

use core::hint::black_box;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use weir_common::flow::Count;
use weir_packet::{Buffer, Link, WINDOW, last_frame_bytes, segments, wire_bytes};

/// A packet, as the kernel hands it to TC programs and socket filters.
#[derive(Clone, Copy)]
pub struct Skb {
    context: *mut __sk_buff,
}

/// What a packet is on the wire.
pub struct Frames {
    /// Length of the packet as it is in memory, without a stripped tag.
    pub skb_bytes: u64,
    /// Frames and their bytes.
    pub count: Count,
    /// Bytes of the last frame; of a super-packet, of a full segment.
    pub last_length: u64,
}

macro_rules! metadata {
    ($($(#[$doc:meta])* $name:ident = $field:ident),+ $(,)?) => {
        $(
            $(#[$doc])*
            #[inline(always)]
            pub fn $name(self) -> u32 {
                // SAFETY: the context is valid while the program runs; the verifier turns this into a checked load.
                unsafe { (*self.context).$field }
            }
        )+
    };
}

impl Skb {
    /// Wraps the context of a program.
    #[inline(always)]
    pub const fn new(context: *mut __sk_buff) -> Self {
        Self { context }
    }

    metadata! {
        /// Length of the packet in bytes, without a VLAN tag that the hardware stripped.
        length = len,
        /// Index of the interface that the packet is at.
        ifindex = ifindex,
        /// Index of the interface that the packet came in at, or 0 if it was made here.
        ingress_ifindex = ingress_ifindex,
        /// Whether the hardware stripped (or will insert) a VLAN tag.
        vlan_present = vlan_present,
        /// That tag, in host order.
        vlan_tci = vlan_tci,
        /// EtherType of that tag, in network order.
        vlan_protocol = vlan_proto,
        /// Segments of a super-packet, or 0.
        gso_segs = gso_segs,
        /// Payload of each segment in bytes, or 0.
        gso_size = gso_size,
        /// What another program or qdisc marked the packet with.
        tc_index = tc_index,
        /// Kind of packet (`PACKET_HOST` and so on).
        packet_type = pkt_type,
    }

    /// EtherType of the packet in host order.
    #[inline(always)]
    pub fn ethertype(self) -> u16 {
        // SAFETY: as above.
        let protocol = unsafe { (*self.context).protocol };
        #[expect(clippy::cast_possible_truncation, reason = "the kernel keeps 16 bits in this field")]
        u16::from_be(protocol as u16)
    }

    /// The context, for helpers that take one.
    #[inline(always)]
    pub const fn as_ptr(self) -> *mut __sk_buff {
        self.context
    }

    /// VLAN identifier of a stripped tag.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a tag has 16 bits")]
    pub fn stripped_vlan(self) -> Option<u16> {
        if self.vlan_present() == 0 { None } else { Some(self.vlan_tci() as u16 & 0xfff) }
    }

    /// Frames and bytes on the wire that the packet stands for. `header_length` is what each further segment of a
    /// super-packet repeats.
    #[inline(always)]
    pub fn on_the_wire(self, header_length: u64) -> Count {
        self.frames(self.vlan_present() != 0, || header_length).count
    }

    /// The same, and what the packet itself and the last of these frames measure. `stripped`: whether the hardware
    /// took a tag.
    #[inline(always)]
    pub fn frames(self, stripped: bool, header_length: impl FnOnce() -> u64) -> Frames {
        let length = u64::from(self.length());
        let gso_size = self.gso_size();
        if gso_size == 0 {
            let bytes = wire_bytes(length, stripped, 1, 0);
            return Frames { skb_bytes: length, count: Count { packets: 1, bytes }, last_length: bytes };
        }
        let header_length = header_length();
        let segments = segments(self.gso_segs(), gso_size, length.saturating_sub(header_length));
        Frames {
            skb_bytes: length,
            count: Count { packets: segments, bytes: wire_bytes(length, stripped, segments, header_length) },
            last_length: last_frame_bytes(length, stripped, segments, gso_size, header_length),
        }
    }

    /// Borrows the first `N` bytes in place, if they lie in the linear part of the packet.
    ///
    /// Only for TC programs; socket filters have no direct access.
    #[inline(always)]
    pub fn linear<const N: usize>(self) -> Option<&'static [u8; N]> {
        // SAFETY: as above; the verifier knows these two fields as packet pointers.
        let data = unsafe { (*self.context).data } as usize;
        // SAFETY: as above.
        let end = unsafe { (*self.context).data_end } as usize;
        if data + N > end {
            return None;
        }
        // SAFETY: the bounds check above, which the verifier repeats, proves N readable bytes.
        Some(unsafe { &*(data as *const [u8; N]) })
    }

    /// Borrows `N` bytes from `offset` on in place, to be written, if they lie in the linear part of the packet.
    ///
    /// Only for TC programs. Before a program that has this runs, the kernel makes the packet its own if it is a clone.
    #[inline(always)]
    pub fn linear_mut<const N: usize>(self, offset: usize) -> Option<&'static mut [u8; N]> {
        // SAFETY: as above.
        let data = unsafe { (*self.context).data } as usize;
        // SAFETY: as above.
        let end = unsafe { (*self.context).data_end } as usize;
        if data + offset + N > end {
            return None;
        }
        // SAFETY: the bounds check above, which the verifier repeats, proves N bytes; the program alone has the packet.
        Some(unsafe { &mut *((data + offset) as *mut [u8; N]) })
    }

    /// Marks the packet for whoever meets it next on this host (`tc_index`).
    #[inline(always)]
    pub fn set_tc_index(self, mark: u32) {
        // SAFETY: the context is valid while the program runs; TC programs may write this field.
        unsafe { (*self.context).tc_index = mark };
    }

    /// Copies up to [`WINDOW`] bytes from the start of the packet. Returns how many, or `None` where the kernel
    /// refuses (an empty packet).
    #[inline(always)]
    pub fn copy_headers(self, buffer: &mut Buffer) -> Option<usize> {
        let length = self.length() as usize;
        if length == 0 {
            return None;
        }
        if length >= WINDOW {
            // A constant length costs 25 ns less than a variable one.
            self.load(buffer, WINDOW)?;
            return Some(WINDOW);
        }
        // 1..=WINDOW by construction: before 6.8 the verifier learns nothing from a comparison with zero. The compiler
        // does, and would leave the mask out if it saw where the number came from.
        let length = (black_box(length - 1) & (WINDOW - 1)) + 1;
        self.load(buffer, length)?;
        Some(length)
    }

    #[inline(always)]
    fn load(self, buffer: &mut Buffer, length: usize) -> Option<()> {
        // SAFETY: the buffer is longer than WINDOW, which bounds every length passed here.
        #[expect(clippy::cast_possible_truncation, reason = "at most WINDOW")]
        let outcome = unsafe {
            bpf_skb_load_bytes(self.context.cast(), 0, buffer.bytes.as_mut_ptr().cast(), length as u32)
        };
        if outcome == 0 { Some(()) } else { None }
    }
}

/// EtherType that a device without a link header gives its packets; devices with one carry it in the packet.
#[inline(always)]
pub fn outer_ethertype(skb: Skb, link: Link) -> Option<u16> {
    match link {
        Link::Ethernet => None,
        Link::Ip => Some(skb.ethertype()),
    }
}
