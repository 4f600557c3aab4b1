//! Allocating what a kill can't leak.
//!
//! An object allocated here has truth 2 until it is published. Publishing is three stores: where
//! to (`dest`, then `publishing`, in the slab's header, which only its owner writes), the pointer
//! itself into its destination, and the byte from 2 to 1 (by compare-and-swap: somebody else may
//! have found the pointer and freed the object by then). Killed before the second, recovery frees
//! the object; after it, it completes the third.
//!
//! A destination outside the area is looked for by the intent in the control block (see
//! `area::intent`): then all of it is under the page lock, and the slab's header says nothing.
//!
//! Who finds the pointer in its destination, and wants to have it elsewhere, settles the object
//! first: `area::moving`.
//!
//! A slab's objects are handed out by its owner alone, who is busy here: what was freed in between
//! stays free. If the owner has let go of the slab meanwhile (it was full), nobody else takes it as
//! long as an object is unpublished there; but who finds that published may free it, and the slab
//! with it, before the last store: so it is published under the page lock. The pages of a run that
//! was freed can be anybody's at once, with the very same word, unpublished; so a run is linked and
//! published under the page lock, which freeing takes too.
//!
//! A structure with records of its own (a hash table) can do without `dest`: it allocates
//! unpublished, links, and [`settle`](Heap::settle)s; its recovery settles what is linked *before*
//! the allocator's recovery frees the 2s of the dead, that is before it calls into the area.

use dsm_core::lock::RawLock;
use dsm_core::planted::{Bug, planted};
use dsm_core::sync::{Ordering, compiler_fence};

use core::ptr::NonNull;

use super::{Flags, Heap};
use crate::area::Located;
use crate::error::Error;
use crate::pointer::{AtomicDsaPointer, DsaPointer};
use crate::slab::{ORPHAN, Owner, UNPUBLISHED, USED};

impl<L: RawLock> Heap<'_, L> {
    /// Allocates an object that is freed by itself when this participant dies before it has
    /// published or settled it.
    ///
    /// # Errors
    ///
    /// As [`allocate_aligned`](Self::allocate_aligned).
    pub fn allocate_unpublished(
        &self,
        size: usize,
        align: usize,
        flags: Flags,
    ) -> Result<DsaPointer, Error> {
        let result = self.allocate_slow(size, align, flags, UNPUBLISHED).and_then(|pointer| {
            if flags.contains(Flags::ZERO) {
                self.zero(pointer, size)?;
            }
            Ok(pointer)
        });
        match result {
            Err(_) if flags.contains(Flags::NO_OOM) => Ok(DsaPointer::INVALID),
            result => result,
        }
    }

    /// Stores `pointer` into `dest`, and makes it an ordinary object: whenever this process is
    /// killed, either `dest` holds the pointer and the object is allocated, or it is not and the
    /// object is freed by recovery. What `dest` held before is overwritten.
    ///
    /// `dest` may lie in this area, which is quickest, or in any other segment of the namespace
    /// that this process has attached, which takes a lock.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignDestination`] if `dest` is in no such segment; [`Error::InvalidPointer`] if
    /// `pointer` is not an unpublished object of this heap.
    pub fn publish(&self, pointer: DsaPointer, dest: &AtomicDsaPointer) -> Result<(), Error> {
        let me = self.identify()?;
        let wild = Error::InvalidPointer(pointer);
        let Some(at) = self.area.pointer_to(core::ptr::from_ref(dest).cast()) else {
            return self.publish_elsewhere(pointer, me, dest);
        };
        match self.area.locate(pointer)? {
            Located::Slab(slab) => {
                let index = slab.index_of(pointer).ok_or(wild)?;
                let truth = slab.truth(index)?;
                let owner = slab.header.owner();
                if !self.may_publish(owner, me) || truth.load(Ordering::Relaxed) != UNPUBLISHED {
                    return Err(wild);
                }
                let nobodys = owner.heap == ORPHAN;
                let _pages = nobodys.then(|| self.area.lock_pages(self.participant)).transpose()?;
                slab.header.publishing.store(0, Ordering::Relaxed);
                compiler_fence();
                slab.header.dest.store(at.raw(), Ordering::Relaxed);
                compiler_fence();
                slab.header.publishing.store(index as u16 + 1, Ordering::Relaxed);
                compiler_fence();
                if planted(Bug::TruthBeforeLink) {
                    truth.store(USED, Ordering::Release);
                }
                dest.store(pointer, Ordering::Release);
                // Fails if who found it there has freed it already.
                let _ =
                    truth.compare_exchange(UNPUBLISHED, USED, Ordering::AcqRel, Ordering::Relaxed);
                Ok(())
            }
            Located::Large { pages, published: false, header, tables, page } => {
                if header.owner.load(Ordering::Relaxed) != me {
                    return Err(wild);
                }
                let _pages = self.area.lock_pages(self.participant)?;
                header.dest.store(at.raw(), Ordering::Relaxed);
                compiler_fence();
                header.publishing.store(1, Ordering::Relaxed);
                compiler_fence();
                dest.store(pointer, Ordering::Release);
                tables.publish_run(page, pages)?;
                Ok(())
            }
            _ => Err(wild),
        }
    }

    /// Whether unpublished objects of a slab, or a run, are this heap's, whose number is `me`: it
    /// has it, or had it last.
    fn may_publish(&self, owner: Owner, me: u64) -> bool {
        let nobodys = owner.heap == ORPHAN && owner.participant == self.participant.packed();
        owner.heap == me || nobodys
    }

    /// As [`publish`](Self::publish), with a destination outside the area.
    #[cold]
    fn publish_elsewhere(
        &self,
        pointer: DsaPointer,
        me: u64,
        dest: &AtomicDsaPointer,
    ) -> Result<(), Error> {
        let wild = Error::InvalidPointer(pointer);
        let place = self.area.place_of(dest)?;
        let header = match self.area.locate(pointer)? {
            Located::Slab(slab) => {
                let truth = slab.truth(slab.index_of(pointer).ok_or(wild)?)?;
                if truth.load(Ordering::Relaxed) != UNPUBLISHED {
                    return Err(wild);
                }
                slab.header
            }
            Located::Large { published: false, header, .. } => header,
            _ => return Err(wild),
        };
        if !self.may_publish(header.owner(), me) {
            return Err(wild);
        }
        let _pages = self.area.lock_words(self.participant)?;
        // What it says is of another publication.
        header.publishing.store(0, Ordering::Relaxed);
        self.area.intend(pointer, None, Some(place));
        dest.store(pointer, Ordering::Release);
        compiler_fence();
        // Fails if who found it there has freed it already.
        let settled = self.area.settle_named(pointer);
        self.area.forget_intent();
        match settled {
            Ok(()) | Err(Error::InvalidPointer(_)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Allocates, lets `init` fill in the memory, and publishes the object in `dest`, so that a
    /// kill at any point leaks nothing.
    ///
    /// # Errors
    ///
    /// As [`allocate_aligned`](Self::allocate_aligned) and [`publish`](Self::publish). With
    /// [`Flags::NO_OOM`] every failure is the invalid pointer, and `dest` is unchanged.
    #[doc(alias = "dsa_allocate")]
    pub fn allocate_into(
        &self,
        size: usize,
        align: usize,
        flags: Flags,
        dest: &AtomicDsaPointer,
        init: impl FnOnce(NonNull<u8>),
    ) -> Result<DsaPointer, Error> {
        let pointer = self.allocate_unpublished(size, align, flags)?;
        if !pointer.is_valid() {
            return Ok(pointer);
        }
        // Undoes the allocation if `init` unwinds or publishing fails.
        let unpublished = Unpublished { heap: self, pointer };
        if let Some(at) = self.area.resolve(pointer) {
            init(at);
        }
        match self.publish(pointer, dest) {
            Ok(()) => {
                core::mem::forget(unpublished);
                Ok(pointer)
            }
            Err(_) if flags.contains(Flags::NO_OOM) => Ok(DsaPointer::INVALID),
            Err(e) => Err(e),
        }
    }

    /// Makes an unpublished object an ordinary one, whoever allocated it: for those who linked it
    /// by a record of their own. (Who finds it in a word and wants to have it elsewhere calls
    /// [`take`](Self::take).) Does nothing to an object that is published.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPointer`] if no allocated object starts there.
    pub fn settle(&self, pointer: DsaPointer) -> Result<(), Error> {
        self.area.settle_named(pointer)
    }
}

struct Unpublished<'u, 'h, L: RawLock> {
    heap: &'u Heap<'h, L>,
    pointer: DsaPointer,
}

impl<L: RawLock> Drop for Unpublished<'_, '_, L> {
    fn drop(&mut self) {
        // SAFETY: the object was never published, so that nobody else knows it.
        let _ = unsafe { self.heap.free(self.pointer) };
    }
}
