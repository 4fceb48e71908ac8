//! How the memory that the user allows is divided between slots, overflow maps and the table in user space.

use weir_common::flow::{GENERATIONS, LedgerRow, Slot};

/// Most slots of a CPU: more no longer fit its cache, and walking them costs more than the hash map saves.
const MOST_SLOTS: u32 = 16_384;

/// Most bytes that all slots together may take.
const MOST_SLOT_BYTES: u64 = 16 << 20;

/// Bytes of one entry of an overflow map: the kernel's element header, key, value and its share of the buckets.
const OVERFLOW_ENTRY_BYTES: u64 = 48 + 48 + 64 + 16;

/// Entries that an overflow map starts with.
const FIRST_OVERFLOW_ENTRIES: u32 = 4096;

/// Least memory that makes sense, in bytes.
pub(crate) const LEAST_MEMORY: u64 = 4 << 20;

/// Sizes of the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// CPUs that the machine may ever have.
    pub cpus: u32,
    /// Slots of each CPU in each generation, a power of two.
    pub slots: u32,
    /// Entries of each generation's overflow map at the start.
    pub overflow: u32,
    /// Most entries that it may grow to.
    pub most_overflow: u32,
    /// Rows of the ledger in each generation on each CPU, two for each interface.
    pub rows: u32,
    /// Bytes left for the table in user space.
    pub user_bytes: u64,
}

impl Sizes {
    /// Divides `memory` bytes: one half for the kernel, at most half of which are slots; the rest for user space.
    #[must_use]
    pub fn plan(memory: u64, cpus: u32, interfaces: u32) -> Self {
        let cpus = cpus.max(1);
        let memory = memory.max(LEAST_MEMORY);
        let kernel = memory / 2;
        let slot_bytes = (kernel / 2).min(MOST_SLOT_BYTES);
        let per_cpu = slot_bytes / (u64::from(GENERATIONS) * u64::from(cpus) * size_of::<Slot>() as u64);
        let slots = power_of_two_below(per_cpu, 16, MOST_SLOTS);
        let slot_bytes =
            u64::from(slots) * u64::from(GENERATIONS) * u64::from(cpus) * size_of::<Slot>() as u64;
        let overflow_bytes = kernel.saturating_sub(slot_bytes);
        let most_overflow = power_of_two_below(
            overflow_bytes / (u64::from(GENERATIONS) * OVERFLOW_ENTRY_BYTES),
            256,
            1 << 24,
        );
        // Row 0 and 1 are for interfaces that nobody listed; twice what is there leaves room for new ones.
        let rows = (interfaces.max(8) * 2 + 1).saturating_mul(2).next_power_of_two().clamp(64, 4096);
        Self {
            cpus,
            slots,
            overflow: FIRST_OVERFLOW_ENTRIES.min(most_overflow),
            most_overflow,
            rows,
            user_bytes: memory - kernel,
        }
    }

    /// Where each CPU's part of a generation lies in the arrays, which are `[cpu][generation][…]`.
    pub(crate) fn shards(&self, generation: u32) -> impl Iterator<Item = u32> + use<> {
        (0..self.cpus).map(move |cpu| cpu * GENERATIONS + generation)
    }

    /// Entries of the slot array.
    pub(crate) fn slot_entries(&self) -> u32 {
        GENERATIONS * self.cpus * self.slots
    }

    /// Entries of the ledger array.
    pub(crate) fn ledger_entries(&self) -> u32 {
        GENERATIONS * self.cpus * self.rows
    }

    /// Bytes that the kernel's tables take when the overflow maps have `overflow` entries.
    #[must_use]
    pub fn kernel_bytes(&self, overflow: u32) -> u64 {
        u64::from(self.slot_entries()) * size_of::<Slot>() as u64
            + u64::from(self.ledger_entries()) * size_of::<LedgerRow>() as u64
            + u64::from(GENERATIONS) * u64::from(overflow) * OVERFLOW_ENTRY_BYTES
    }
}

/// Largest power of two that is at most `value`, kept between `least` and `most` (powers of two themselves).
fn power_of_two_below(value: u64, least: u32, most: u32) -> u32 {
    let value = u32::try_from(value).unwrap_or(u32::MAX).clamp(least, most);
    1 << value.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_stays_within_the_memory_given() {
        for memory in [4 << 20, 16 << 20, 64 << 20, 1 << 30] {
            for cpus in [1, 2, 8, 128] {
                let sizes = Sizes::plan(memory, cpus, 10);
                let all = sizes.kernel_bytes(sizes.most_overflow) + sizes.user_bytes;
                // The ledger is not part of the bargain: it is what makes the totals exact, whatever the memory.
                let ledger = u64::from(sizes.ledger_entries()) * 128;
                let least_slots = u64::from(sizes.slot_entries()) * 128;
                assert!(all <= memory + ledger + least_slots, "{memory} {cpus}: {sizes:?} takes {all}");
                assert!(sizes.slots.is_power_of_two());
                assert!(sizes.overflow <= sizes.most_overflow);
            }
        }
    }

    #[test]
    fn the_default_leaves_room_for_fifty_thousand_flows() {
        let sizes = Sizes::plan(64 << 20, 2, 4);
        assert_eq!(sizes.slots, 16_384);
        assert!(sizes.most_overflow >= 65_536, "{sizes:?}");
    }
}
