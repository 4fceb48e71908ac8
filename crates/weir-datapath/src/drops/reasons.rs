//! [`Reasons`]: the names of the running kernel's reasons to drop a packet.

use std::{collections::HashMap, sync::Arc};

use weir_common::drops::DROP_REASONS;

use crate::sockets::kernel_types::KernelTypes;

const ENUMERATION: &str = "skb_drop_reason";
/// What the names of the kernel's own reasons begin with. Others (Open vSwitch, mac80211) have no names here.
const PREFIX: &str = "SKB_DROP_REASON_";
/// A packet that reached its end: passed to the tracepoint by mistake of a caller, if at all.
const CONSUMED: &str = "SKB_CONSUMED";
/// Position of the reason among the parameters of the tracepoint, after its own data, the packet and the place.
const PARAMETER: usize = 3;

/// Names by number.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    names: HashMap<u32, Arc<str>>,
    consumed: Option<u32>,
}

impl Reasons {
    /// Those of the kernel with these types; `None` if it does not tell reasons to its tracepoint.
    pub(super) fn of(types: &KernelTypes) -> Option<Self> {
        let parameter = types.parameter_enumeration("btf_trace_kfree_skb", PARAMETER)?;
        (parameter == ENUMERATION).then_some(())?;
        Some(Self::new(&types.enumeration(ENUMERATION)?))
    }

    fn new(constants: &[(String, u32)]) -> Self {
        let mut reasons = Self::default();
        for (name, number) in constants {
            if name == CONSUMED {
                reasons.consumed = Some(*number);
            } else if let Some(name) = name.strip_prefix(PREFIX)
                && !matches!(name, "MAX" | "SUBSYS_MASK")
            {
                reasons.names.insert(*number, name.into());
            }
        }
        reasons
    }

    /// Number of the reason that is none.
    pub(super) const fn consumed(&self) -> Option<u32> {
        self.consumed
    }

    /// The name of a reason, or its number where it has none: subsystems count in the upper half of it.
    pub(super) fn name(&self, number: u32) -> Arc<str> {
        match self.names.get(&number) {
            Some(name) => Arc::clone(name),
            None if number >> 16 == 0 => format!("reason {number}").into(),
            None => format!("subsystem {} reason {}", number >> 16, number & 0xffff).into(),
        }
    }

    /// The name of a row of those that had no room of their own.
    pub(super) fn folded_name(&self, row: u32) -> Arc<str> {
        let is_last = usize::try_from(row).is_ok_and(|row| row == DROP_REASONS - 1);
        if is_last { "others".into() } else { self.name(row) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_called_as_the_kernel_calls_them() {
        let constants = [
            ("SKB_NOT_DROPPED_YET", 0),
            ("SKB_CONSUMED", 1),
            ("SKB_DROP_REASON_NOT_SPECIFIED", 2),
            ("SKB_DROP_REASON_NO_SOCKET", 3),
            ("SKB_DROP_REASON_MAX", 90),
            ("SKB_DROP_REASON_SUBSYS_MASK", 0xffff_0000),
        ];
        let reasons = Reasons::new(&constants.map(|(name, number)| (name.to_owned(), number)));
        assert_eq!(reasons.consumed(), Some(1));
        for (number, expect) in
            [(2, "NOT_SPECIFIED"), (3, "NO_SOCKET"), (90, "reason 90"), (0x0002_0005, "subsystem 2 reason 5")]
        {
            assert_eq!(&*reasons.name(number), expect);
        }
        assert_eq!(&*reasons.folded_name(3), "NO_SOCKET");
        assert_eq!(&*reasons.folded_name(511), "others");
    }

    #[test]
    fn the_running_kernel_names_its_reasons_if_it_has_them() {
        let Some(reasons) = KernelTypes::of_running_kernel().ok().and_then(|types| Reasons::of(&types))
        else {
            println!("skipped: this kernel has no type information, or no reasons");
            return;
        };
        assert!(reasons.names.values().any(|name| &**name == "NO_SOCKET"));
        assert!(reasons.names.len() > 10);
    }
}
