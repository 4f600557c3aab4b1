//! An area as one process has it: creating, attaching, resolving pointers.
//!
//! The first segment holds the control block; the others are kept *under* it in the namespace
//! (`pin_segment_under`), so that the namespace's own bookkeeping answers all questions of life
//! and death: an area is attached by a process exactly if its first segment is, the last process
//! to leave (or to be found dead) takes all segments with it, and attaching afterwards finds
//! nothing. There is no count of our own that a killed process could leave wrong.
//!
//! An area in place lies in a segment of the caller's: that segment is the one its other segments
//! are kept under.

mod copy;
mod create;
mod directory;
mod free_from;
mod give_back;
mod grow;
mod intent;
mod moving;
mod nobodys;
mod recover;
mod report;
mod resolve;
mod runs;

use core::marker::PhantomData;

use dsm_core::handle::{LockAddress, SegmentHandle};
use dsm_core::lock::{Acquired, ExclusiveGuard, LockRef, Patience, RawLock};
use dsm_core::namespace::Namespace;
use dsm_core::participant::{Participant, Peers};
use dsm_core::segment::Segment;
use dsm_core::sync::Ordering;

use crate::error::Error;
use crate::header::{AreaHeader, Entry, INLINE_ENTRIES};
use crate::heap::Heap;
use crate::hints::HeapLocal;
use crate::layout::Geometry;
use crate::local::AreaLocal;
use crate::memory::Memory;
use crate::pointer::DsaPointer;

pub use create::Options;
pub(crate) use free_from::Freed;
#[cfg(all(test, loom))]
pub(crate) use free_from::{begin, complete};
pub use report::{Report, Stats};
pub(crate) use runs::{Located, Purpose};

/// A dynamic shared area: an allocator over segments of a namespace. `Send + Sync`; dropping it
/// detaches the process. The last to do so ends an area with a handle; one in place lives as long
/// as its place, or until [`destroy_in_place`](Self::destroy_in_place).
#[doc(alias = "dsa_area")]
#[doc(alias = "dsa_detach")]
#[doc(alias = "dsa_release_in_place")]
pub struct Area<'n, L> {
    namespace: &'n Namespace<'n>,
    local: &'n AreaLocal,
    /// The first segment.
    memory: Memory<'n>,
    header: &'n AreaHeader,
    /// The segment in which the control block lies, and where it starts there.
    parent: SegmentHandle,
    parent_slot: u32,
    place: u64,
    /// Tells this attachment from others of the same area.
    instance: u64,
    _lock: PhantomData<fn() -> L>,
}

/// The key of an area's first segment.
const FIRST_KEY: u32 = DsaPointer::key_of(0, 1);

impl<'n, L: RawLock> Area<'n, L> {
    /// The handle by which others attach; `None` for an area in place.
    #[doc(alias = "dsa_get_handle")]
    #[must_use]
    pub fn handle(&self) -> Option<SegmentHandle> {
        (self.header.in_place.load(Ordering::Relaxed) == 0).then_some(self.parent)
    }

    /// Whether this process has the area with that handle attached.
    #[doc(alias = "dsa_is_attached")]
    #[must_use]
    pub fn is_attached(namespace: &Namespace<'_>, handle: SegmentHandle) -> bool {
        namespace.find_mapping(handle).is_some()
    }

    /// Keeps the area after the last process has left it, until [`unpin`](Self::unpin).
    ///
    /// # Errors
    ///
    /// [`Error::Namespace`] if it is pinned already; [`Error::NotAnArea`] in place, where it lives
    /// as long as its place.
    #[doc(alias = "dsa_pin")]
    pub fn pin(&self) -> Result<(), Error> {
        Ok(self.namespace.pin_segment(self.handle().ok_or(Error::NotAnArea)?)?)
    }

    /// Undoes [`pin`](Self::pin).
    ///
    /// # Errors
    ///
    /// [`Error::Namespace`] if it is not pinned; [`Error::NotAnArea`] in place.
    #[doc(alias = "dsa_unpin")]
    pub fn unpin(&self) -> Result<(), Error> {
        Ok(self.namespace.unpin_segment(self.handle().ok_or(Error::NotAnArea)?)?)
    }

    /// Limits the bytes of all segments together. What exists stays.
    ///
    /// # Errors
    ///
    /// [`Error::Namespace`] in a fork child, and in a process that was declared dead.
    #[doc(alias = "dsa_set_size_limit")]
    pub fn set_size_limit(&self, bytes: u64) -> Result<(), Error> {
        self.namespace.confirm()?;
        self.header.limit.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &'n Namespace<'n> {
        self.namespace
    }

    /// A heap: the right of one thread to allocate and free here. `local` belongs to this area
    /// and thread; what it knows from before is kept if it was for this participant.
    ///
    /// # Errors
    ///
    /// [`Error::Lock`] if the participant is not registered in this process, or was declared dead;
    /// [`Error::ForeignParticipant`] if it is another namespace's.
    pub fn heap<'h>(
        &'h self,
        participant: &'h Participant<'h>,
        local: &'h HeapLocal,
    ) -> Result<Heap<'h, L>, Error> {
        Heap::new(self, participant, local)
    }

    pub(crate) fn local(&self) -> &'n AreaLocal {
        self.local
    }

    pub(crate) fn header(&self) -> &'n AreaHeader {
        self.header
    }

    pub(crate) fn instance(&self) -> u64 {
        self.instance
    }

    /// Refuses participants of other namespaces: locks and slabs of the area know whom they belong
    /// to by ids of its own namespace.
    pub(crate) fn admit(&self, participant: &Participant<'_>) -> Result<(), Error> {
        // A participant borrows its peers, and the area its namespace, so that neither moves.
        let ours = core::ptr::addr_eq(participant.peers(), self.namespace);
        if ours { Ok(()) } else { Err(Error::ForeignParticipant) }
    }

    /// The directory entry of a segment.
    pub(crate) fn entry(&self, index: usize) -> Result<&Entry, Error> {
        if index < INLINE_ENTRIES {
            return Ok(&self.header.inline[index]);
        }
        let rest = DsaPointer::from_raw(self.header.directory.load(Ordering::Acquire));
        if index >= DsaPointer::MAX_SEGMENTS || rest.segment() >= INLINE_ENTRIES {
            return Err(crate::error::Corruption::new("a directory entry", index as u64).into());
        }
        let memory = self.map(rest.key())?;
        Ok(memory.at(rest.offset() + ((index - INLINE_ENTRIES) * 64) as u64)?)
    }

    /// Entries that have ever been used.
    pub(crate) fn entries(&self) -> usize {
        (self.header.entries.load(Ordering::Acquire) as usize).min(DsaPointer::MAX_SEGMENTS)
    }

    fn lock(&self, which: u64) -> Result<LockRef<'_, L>, Error> {
        let geometry = self.geometry_of(0, self.memory.len())?;
        let bytes = L::size_for(self.namespace.max_participants()) as u64;
        let offset = geometry.locks_at + which * bytes;
        let at = self.memory.range(offset, bytes)?.cast();
        let address = LockAddress::new(self.parent_slot, self.place + offset);
        // SAFETY: `init` built the locks there, of this kind (the control block says so), and the
        // first segment is mapped as long as the area is attached; each participant is admitted.
        Ok(unsafe { LockRef::new(at, address) })
    }

    /// Takes the lock over segments, and repairs what a dead holder left.
    pub(crate) fn lock_area<'p>(
        &'p self,
        participant: &'p Participant<'p>,
    ) -> Result<ExclusiveGuard<'p, L>, Error> {
        self.admit(participant)?;
        let mut guard = self.lock(0)?.exclusive(participant, Patience::Forever)?;
        if guard.acquired() == Acquired::FromDead {
            self.recover_directory()?;
            guard.mark_recovered();
        }
        Ok(guard)
    }

    /// Takes the lock over pages, and repairs what a dead holder left.
    pub(crate) fn lock_pages<'p>(
        &'p self,
        participant: &'p Participant<'p>,
    ) -> Result<ExclusiveGuard<'p, L>, Error> {
        self.admit(participant)?;
        let mut guard = self.lock(1)?.exclusive(participant, Patience::Forever)?;
        if guard.acquired() == Acquired::FromDead {
            self.recover_pages()?;
            guard.mark_recovered();
        }
        Ok(guard)
    }

    /// The geometry of a segment of this area.
    pub(crate) fn geometry_of(&self, index: usize, size: u64) -> Result<Geometry, Error> {
        let locks = if index == 0 { 2 * self.header.lock_bytes.load(Ordering::Relaxed) } else { 0 };
        Ok(Geometry::new(size, locks)
            .ok_or(crate::error::Corruption::new("a segment of impossible size", size))?)
    }
}

impl<L> Drop for Area<'_, L> {
    fn drop(&mut self) {
        // The table is locked by nobody: threads that used it borrowed the area. Except in a fork
        // child, by a thread of its parent's that it does not have: there the mappings stay.
        if let Some(guard) = self.local.try_lock(self.namespace.platform().env) {
            let high = self.local.high.load(Ordering::Relaxed);
            // The first segment last: with it the process has left.
            for index in (0..high).rev() {
                if let Some(raw) = guard.remove(index) {
                    // SAFETY: the table holds what `into_raw` gave, once.
                    drop(unsafe { Segment::from_raw(self.namespace, raw) });
                }
            }
            // SAFETY: who is late in one of the ranges borrows the area.
            unsafe { self.namespace.release_blanks(self.local.owner()) };
        }
        self.local.give_back();
    }
}
