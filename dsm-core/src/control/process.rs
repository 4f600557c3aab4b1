//! Process slots: who is attached to the namespace.
//!
//! `state` is generation above, state below. FREE becomes LIVE by the holder of the election, who
//! holds the slot's token of life (then `proof` is written before). LIVE becomes DEAD by a
//! compare-and-swap of whoever has proof; DEAD becomes FREE under the control lock, after all that
//! the process left was swept. LIVE becomes FREE when the process leaves.

use super::header::ProofWords;
use crate::sync::{AtomicU64, Ordering};

pub(crate) const FREE: u32 = 0;
pub(crate) const LIVE: u32 = 1;
pub(crate) const DEAD: u32 = 2;

#[repr(C, align(64))]
pub(crate) struct ProcessSlot {
    pub(crate) state: AtomicU64,
    pub(crate) proof: ProofWords,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<ProcessSlot>() == 64);

/// Generation above, state below: the form of process and participant slot states.
pub(crate) const fn pack(generation: u32, state: u32) -> u64 {
    (generation as u64) << 32 | state as u64
}

/// Reverses [`pack`].
pub(crate) const fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

impl ProcessSlot {
    pub(crate) fn new() -> Self {
        Self { state: AtomicU64::new(0), proof: ProofWords::new() }
    }

    /// (generation, state).
    pub(crate) fn get(&self) -> (u32, u32) {
        unpack(self.state.load(Ordering::Acquire))
    }

    /// Records that the tenant of `generation` is proven dead.
    pub(crate) fn mark_dead(&self, generation: u32) {
        let (live, dead) = (pack(generation, LIVE), pack(generation, DEAD));
        let _ = self.state.compare_exchange(live, dead, Ordering::AcqRel, Ordering::Relaxed);
    }
}
