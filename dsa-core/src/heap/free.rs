//! Freeing what is not in one of this heap's own, unwatched slabs of a whole unit.

use dsm_core::lock::RawLock;
use dsm_core::planted::{Bug, planted};
use dsm_core::sync::{AtomicU8, Ordering};

use super::Heap;
use crate::area::{Freed, Located};
use crate::error::{Error, FreeError};
use crate::pointer::{AtomicDsaPointer, DsaPointer};
use crate::slab::{FREE, Slab, WATCHED, is_allocated};

impl<L: RawLock> Heap<'_, L> {
    #[cold]
    #[inline(never)]
    pub(super) fn free_slow(&self, pointer: DsaPointer) -> Result<(), FreeError> {
        let me = self.identify()?;
        match self.area.locate(pointer) {
            Ok(Located::Slab(slab)) => self.free_in_slab(pointer, &slab, me),
            Ok(Located::Large { .. } | Located::Unknown) => {
                self.area.free_large(self.participant, pointer)
            }
            Err(Error::InvalidPointer(_)) => Err(FreeError::InvalidPointer(pointer)),
            Err(e) => Err(FreeError::Refused(e)),
        }
    }

    fn free_in_slab(&self, pointer: DsaPointer, slab: &Slab<'_>, me: u64) -> Result<(), FreeError> {
        let index = slab.index_of(pointer).ok_or(FreeError::InvalidPointer(pointer))?;
        let truth = slab.truth(index)?;
        let owner = slab.header.owner.load(Ordering::Acquire);
        if owner & !WATCHED != me {
            return free_remotely(pointer, slab, truth);
        }
        slab.class()?;
        if !is_allocated(truth.load(Ordering::Relaxed)) {
            return Err(FreeError::DoubleFree(pointer));
        }
        truth.store(FREE, Ordering::Release);
        self.freed_in_own(pointer, slab, truth, owner)
    }

    /// Remembers an object that is free now, in a slab of this heap.
    fn freed_in_own(
        &self,
        pointer: DsaPointer,
        slab: &Slab<'_>,
        truth: &AtomicU8,
        owner: u64,
    ) -> Result<(), FreeError> {
        let class = slab.class()?;
        if self.local.classes[class].push(pointer, truth) {
            self.tidy(class);
        }
        if owner & WATCHED != 0 {
            let left = slab.header.countdown.load(Ordering::Relaxed).saturating_sub(1);
            slab.header.countdown.store(left, Ordering::Relaxed);
            if left == 0 {
                // The object is free already; a failure only keeps the slab out of sight.
                let _ = self.offer(slab, class, owner & !WATCHED);
            }
        }
        Ok(())
    }

    /// Frees the object that `dest` names, and clears `dest`, such that a kill at any moment leaves either both undone or both done, once somebody has used the
    /// area again: call it again for a `dest` that still names something. Does nothing if `dest` is
    /// invalid. Takes a lock: for what is freed seldom.
    ///
    /// # Errors
    ///
    /// As [`free`](Self::free), and [`Error::ForeignDestination`] if `dest` is in no segment that this
    /// process has attached. Nothing is changed then.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free). Nobody else may write to `dest` meanwhile, and after a kill
    /// nobody may use it for anything else before this function was called for it again, unless
    /// it was invalid.
    pub unsafe fn free_from(&self, dest: &AtomicDsaPointer) -> Result<(), FreeError> {
        let me = self.identify()?;
        if let Freed::Object { pointer, slab, truth } =
            self.area.free_named(self.participant, dest)?
        {
            let owner = slab.header.owner.load(Ordering::Relaxed);
            if owner & !WATCHED == me {
                // The object is free already; a failure only keeps it out of sight.
                let _ = self.freed_in_own(pointer, &slab, truth, owner);
            }
        }
        Ok(())
    }
}

/// Frees an object of somebody else's slab: mark, then one compare-and-swap as the last access.
pub(crate) fn free_remotely(
    pointer: DsaPointer,
    slab: &Slab<'_>,
    truth: &AtomicU8,
) -> Result<(), FreeError> {
    let mut value = truth.load(Ordering::Relaxed);
    if is_allocated(value) && slab.header.pending.load(Ordering::Relaxed) == 0 {
        let mark = u8::from(!planted(Bug::RemoteFreeUnseen));
        slab.header.pending.store(mark, Ordering::Release);
    }
    while is_allocated(value) {
        match truth.compare_exchange(value, FREE, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return Ok(()),
            Err(now) => value = now,
        }
    }
    Err(FreeError::DoubleFree(pointer))
}
