//! Freeing what is not in one of this heap's own, unwatched slabs of a whole unit.

use dsm_core::lock::RawLock;
use dsm_core::sync::Ordering;

use super::Heap;
use crate::area::Located;
use crate::error::{Error, FreeError};
use crate::pointer::DsaPointer;
use crate::slab::{FREE, Slab, WATCHED};

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
        let class = slab.class()?;
        if truth.load(Ordering::Relaxed) == FREE {
            return Err(FreeError::DoubleFree(pointer));
        }
        truth.store(FREE, Ordering::Release);
        if self.local.classes[class].push(pointer, truth) {
            self.tidy(class);
        }
        if owner & WATCHED != 0 {
            let left = slab.header.countdown.load(Ordering::Relaxed).saturating_sub(1);
            slab.header.countdown.store(left, Ordering::Relaxed);
            if left == 0 {
                // The object is free already; a failure only keeps the slab out of sight.
                let _ = self.offer(slab, class, me);
            }
        }
        Ok(())
    }
}

/// Frees an object of somebody else's slab: mark, then one compare-and-swap as the last access.
fn free_remotely(
    pointer: DsaPointer,
    slab: &Slab<'_>,
    truth: &dsm_core::sync::AtomicU8,
) -> Result<(), FreeError> {
    let mut value = truth.load(Ordering::Relaxed);
    if value != FREE && slab.header.pending.load(Ordering::Relaxed) == 0 {
        slab.header.pending.store(1, Ordering::Release);
    }
    while value != FREE {
        match truth.compare_exchange(value, FREE, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return Ok(()),
            Err(now) => value = now,
        }
    }
    Err(FreeError::DoubleFree(pointer))
}
