//! The death count: how a process that was declared dead, and lives, finds out.
//!
//! A death is declared by proof, and a proof is as good as what it rests on. A process that closes
//! descriptors which it didn't open loses its token of life; if nothing else speaks for it, the
//! others sweep it, take its locks over, and give its slot to somebody else. It must not go on
//! then, nor may its guards let go of what they don't hold any more.
//!
//! One word of the control header, the [`DeathCount`], moves with every death. Each participant has
//! a copy of it in its local half and compares the two in each call that takes or gives back a
//! lock, allocates or frees. Nothing has moved in nearly all of them, and the comparison is all it
//! costs. Where it has, the participant looks up its own slot and its process's
//! ([`Participant::confirm`]): if both are still its own it takes the new count and goes on, else
//! it forgets its registration, as a fork child does. Every later call is then
//! [`LockError::DeclaredDead`], and its guards give nothing back.
//!
//! # Order
//!
//! Who declares somebody dead, and who makes use of it, keeps to one order:
//!
//! 1. **Mark**: the state in the slot of the process, or of the participant, by a compare-and-swap.
//! 2. **Raise** the count.
//! 3. **Act**: take a lock over, clear a reader's bit, free the slot, adopt what it owned.
//!
//! So whoever is acted upon finds the count moved in its next call, and the mark behind it. Whoever
//! comes across a mark and acts raises the count first, too: the one who made the mark may have
//! been killed right after it. Raising it once too often costs everybody one look at their slots.
//!
//! # What this can't do
//!
//! The call that a process is in at the moment when it is swept goes on to its end, like one that
//! is interrupted between any two instructions. A word that is stored by it then, is stored.
//!
//! [`Participant::confirm`]: crate::participant::Participant::confirm
//! [`LockError::DeclaredDead`]: crate::lock::LockError::DeclaredDead

use crate::planted::{Bug, planted};
use crate::sync::Ordering;

#[cfg(not(loom))]
use crate::sync::AtomicU64;
/// Without scheduling points: every call would have one more, and three times as much be explored.
/// What the count is for is explored by shuttle.
#[cfg(loom)]
use core::sync::atomic::AtomicU64;

/// How many deaths were declared; see the module's essay. Never 0, which is the copy of a
/// participant that isn't registered.
#[repr(transparent)]
pub struct DeathCount(AtomicU64);

impl DeathCount {
    /// A count without a death.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(1))
    }

    /// A count that never moves, for peers among whom nobody is ever declared dead wrongly.
    #[must_use]
    pub fn never() -> &'static Self {
        static NEVER: DeathCount = DeathCount::new();
        &NEVER
    }

    /// Says that somebody was declared dead, between the mark and what is done because of it.
    #[cold]
    pub fn raise(&self) {
        if !planted(Bug::DeathUnannounced) {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The count as a copy is compared with it.
    #[inline(always)]
    pub(crate) fn get(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }
}

impl Default for DeathCount {
    fn default() -> Self {
        Self::new()
    }
}
