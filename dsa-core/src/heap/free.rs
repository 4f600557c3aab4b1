//! Freeing what is not in one of this heap's own slabs of a whole unit.
//!
//! In a slab of nobody whoever frees counts, frees, and looks at the slab if the count says so (see
//! `area::nobodys`). It counts first: the object keeps the slab where it is, and with the free that
//! is over. Who took the slab for somebody's looks at its owner word once more afterwards: if it
//! was let go of in between, nobody has counted this object. That look may be at anything, and is a
//! hint: what is done is decided under the page lock.

use dsm_core::lock::RawLock;
use dsm_core::planted::{Bug, planted};
use dsm_core::sync::{AtomicU8, Ordering};

use super::Heap;
use crate::area::{Freed, Located};
use crate::error::{Error, FreeError};
use crate::hints::MAGAZINE;
use crate::pointer::{AtomicDsaPointer, DsaPointer};
use crate::slab::{FREE, ORPHAN, Slab, SlabHeader, is_allocated};

/// Slabs of a class that a heap takes back when it frees in them, at most: what it has is out of
/// others' reach while it sleeps.
const KEEP: u32 = 16;
/// Slabs with fewer objects it doesn't take back: the last of them could all be in the magazine,
/// where nobody notices that the slab is empty.
const FEW: u32 = MAGAZINE as u32;

/// What is to be done when an object of somebody else's slab, or nobody's, was freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    Nothing,
    /// To look at the slab.
    Look,
    /// The same, and to count the object: the slab has become nobody's.
    LookUncounted,
}

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
        if owner != me {
            self.tend(pointer, free_remotely(pointer, slab.header, truth)?);
            return Ok(());
        }
        slab.class()?;
        if !is_allocated(truth.load(Ordering::Relaxed)) {
            return Err(FreeError::DoubleFree(pointer));
        }
        truth.store(FREE, Ordering::Release);
        self.freed_in_own(pointer, slab, truth)
    }

    /// Remembers an object that is free now, in a slab of this heap.
    fn freed_in_own(
        &self,
        pointer: DsaPointer,
        slab: &Slab<'_>,
        truth: &AtomicU8,
    ) -> Result<(), FreeError> {
        let class = slab.class()?;
        if self.local.classes[class].push(pointer, truth) {
            self.tidy(pointer);
        }
        Ok(())
    }

    /// Does what is due after an object was freed. A failure leaves the slab to those who look for
    /// memory.
    #[inline(always)]
    pub(super) fn tend(&self, pointer: DsaPointer, due: Due) {
        if due != Due::Nothing {
            let _ = self.tend_now(pointer, due == Due::LookUncounted);
        }
    }

    #[cold]
    #[inline(never)]
    fn tend_now(&self, pointer: DsaPointer, uncounted: bool) -> Result<(), Error> {
        let me = self.as_owner(self.local.me.get());
        let taker = |slab: &Slab<'_>, class: usize| {
            let room = self.local.classes[class].slabs.get() < KEEP;
            (room && slab.count() > FEW).then_some(me)
        };
        match self.area.tend(self.participant, pointer, uncounted, &taker)? {
            Some(slab) => self.welcome(&slab),
            None => Ok(()),
        }
    }

    /// Frees the object that `dest` names, and clears `dest`, such that a kill at any moment leaves
    /// either both undone or both done, once somebody has used the area again: call it again for a
    /// `dest` that still names something. Does nothing if `dest` is invalid. Takes a lock: for what
    /// is freed seldom.
    ///
    /// # Errors
    ///
    /// As [`free`](Self::free), and [`Error::ForeignDestination`] if `dest` is in no segment that
    /// this process has attached. Nothing is changed then.
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free). Nobody else may write to `dest` meanwhile, and after a kill
    /// nobody may use it for anything else before this function was called for it again, unless
    /// it was invalid.
    pub unsafe fn free_from(&self, dest: &AtomicDsaPointer) -> Result<(), FreeError> {
        let me = self.identify()?;
        if let Freed::Object { pointer, slab, truth, due } =
            self.area.free_named(self.participant, dest)?
        {
            if slab.header.owner.load(Ordering::Relaxed) == me {
                // The object is free already; a failure only keeps it out of sight.
                let _ = self.freed_in_own(pointer, &slab, truth);
            } else {
                self.tend(pointer, due);
            }
        }
        Ok(())
    }
}

/// Frees an object of a slab that is not the caller's: counts it if the slab is nobody's, then one
/// compare-and-swap as the last store.
#[inline(always)]
pub(crate) fn free_remotely(
    pointer: DsaPointer,
    header: &SlabHeader,
    truth: &AtomicU8,
) -> Result<Due, FreeError> {
    let mut value = truth.load(Ordering::Relaxed);
    let late = planted(Bug::CountedLate);
    let counted = if late { Counted::No } else { count(header, is_allocated(value)) };
    while is_allocated(value) {
        match truth.compare_exchange(value, FREE, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) if late => return Ok(count(header, true).freed(header)),
            Ok(_) => return Ok(counted.freed(header)),
            Err(now) => value = now,
        }
    }
    Err(FreeError::DoubleFree(pointer))
}

/// What was counted before an object is freed.
pub(crate) enum Counted {
    /// In a slab of nobody; whether it is to be looked at.
    Nobodys(bool),
    /// The slab was somebody's.
    No,
}

/// Counts an object that is about to be freed, in a slab that is not the caller's.
#[inline(always)]
pub(crate) fn count(header: &SlabHeader, allocated: bool) -> Counted {
    match header.owner.load(Ordering::Acquire) {
        ORPHAN if allocated => Counted::Nobodys(header.count_down()),
        _ => Counted::No,
    }
}

impl Counted {
    /// What is due when the object is free.
    #[inline(always)]
    pub(crate) fn freed(self, header: &SlabHeader) -> Due {
        match self {
            Self::Nobodys(false) => Due::Nothing,
            Self::Nobodys(true) => Due::Look,
            Self::No if header.owner.load(Ordering::Acquire) == ORPHAN => Due::LookUncounted,
            Self::No => Due::Nothing,
        }
    }
}
