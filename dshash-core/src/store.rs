//! Where a table's memory comes from.
//!
//! A table asks little of its area: to resolve a pointer ([`Store`]), and, for those who change
//! something, to allocate straight into a word and to free what a word points to ([`Allocator`]).
//! An area of `dsa-core` is a store and its heaps are allocators; tests and models implement both
//! over plain memory.
//!
//! The allocator comes as an object: it is called once in hundreds of operations.

use core::ptr::NonNull;

use dsa_core::{Area, AtomicDsaPointer, DsaPointer, Flags, FreeError, Heap};
use dsm_core::handle::LockAddress;
use dsm_core::lock::RawLock;
use dsm_core::participant::Participant;
use dsm_core::sync::Ordering;

use crate::error::MemoryError;

/// Why a store has no address for a pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unresolved {
    /// The pointer leads to nothing: it is invalid, its segment is gone, or the bytes leave it.
    Nowhere,
    /// The segment is there, and could not be mapped now: why. The same call may succeed later.
    Unmapped(dsa_core::Error),
}

impl From<dsa_core::Error> for Unresolved {
    #[cold]
    fn from(error: dsa_core::Error) -> Self {
        match error {
            dsa_core::Error::InvalidPointer(_) => Self::Nowhere,
            error => Self::Unmapped(error),
        }
    }
}

/// Memory that tables live in.
///
/// # Safety
///
/// Memory that [`resolve`](Self::resolve) returned must stay readable as long as the store lives,
/// freed or not (it may turn into zeros), be aligned as the pointer is, up to 128, and be shared
/// with everybody else who resolves the same pointer while it is allocated.
pub unsafe trait Store {
    /// The kind of lock used in this area's namespace.
    type Lock: RawLock;

    /// The address of `len` bytes at `pointer`, whose segment is mapped if it is not. Takes any
    /// bits.
    ///
    /// # Errors
    ///
    /// [`Unresolved`].
    fn resolve(&self, pointer: DsaPointer, len: usize) -> Result<NonNull<u8>, Unresolved>;

    /// As [`resolve`](Self::resolve), but `None` where that is an error, and where the segment
    /// would have to be mapped first. Never waits and calls nothing of the platform: what can't be
    /// seen at once is looked at again the long way.
    #[inline(always)]
    fn resolve_at_hand(&self, pointer: DsaPointer, len: usize) -> Option<NonNull<u8>> {
        self.resolve(pointer, len).ok()
    }

    /// How a lock at `pointer` is named in its namespace.
    fn lock_address(&self, pointer: DsaPointer) -> Option<LockAddress>;

    /// Tells this area, as attached by this process, from others.
    fn id(&self) -> usize;
}

/// A participant's right to allocate in a store.
///
/// # Safety
///
/// Allocations must lie in the store of [`store_id`](Self::store_id) and not overlap.
/// [`participant`](Self::participant) must be one of that store's namespace.
pub unsafe trait Allocator {
    /// Whose right it is.
    fn participant(&self) -> &Participant<'_>;

    /// [`Store::id`] of the store.
    fn store_id(&self) -> usize;

    /// Allocates `size` bytes aligned to `align` and stores their pointer in `destination`, such
    /// that a kill at any moment leaves either no allocation or one that `destination` names.
    /// The bytes are arbitrary.
    ///
    /// # Errors
    ///
    /// See [`MemoryError`]; `destination` is unchanged then.
    fn allocate_into(
        &self,
        destination: &AtomicDsaPointer,
        size: usize,
        align: usize,
    ) -> Result<(), MemoryError>;

    /// Frees what `destination` names and stores 0 in it, such that a kill at any moment leaves
    /// either both undone or both done, once the allocator has been used again. Does nothing if it
    /// names nothing.
    ///
    /// # Errors
    ///
    /// See [`MemoryError`]; nothing is changed then, and it can be tried again.
    ///
    /// # Safety
    ///
    /// Nothing may write to the memory any more, and only the caller may use `destination`.
    unsafe fn free_from(&self, destination: &AtomicDsaPointer) -> Result<(), MemoryError>;

    /// Allocates without a word to name the memory, which is freed by itself if the participant
    /// dies before [`publish`](Self::publish) or [`settle`](Self::settle).
    ///
    /// # Errors
    ///
    /// See [`MemoryError`].
    fn allocate_unpublished(&self, size: usize, align: usize) -> Result<DsaPointer, MemoryError>;

    /// Stores an unpublished allocation in `destination`, which keeps it from then on, whenever the
    /// participant is killed.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Area`] if `destination` is not in the store; it is unchanged then.
    fn publish(
        &self,
        pointer: DsaPointer,
        destination: &AtomicDsaPointer,
    ) -> Result<(), MemoryError>;

    /// Makes an unpublished allocation one that outlives the participant.
    fn settle(&self, pointer: DsaPointer);

    /// Frees an allocation.
    ///
    /// # Safety
    ///
    /// Once, and nothing may write to the memory any more.
    unsafe fn free(&self, pointer: DsaPointer);
}

// SAFETY: an area keeps what it resolved readable as long as it is attached, and its pointers are
// aligned as the memory is, segments being aligned to pages.
unsafe impl<L: RawLock> Store for &Area<'_, L> {
    type Lock = L;

    #[inline(always)]
    fn resolve(&self, pointer: DsaPointer, len: usize) -> Result<NonNull<u8>, Unresolved> {
        Ok(self.try_resolve_range(pointer, len)?)
    }

    #[inline(always)]
    fn resolve_at_hand(&self, pointer: DsaPointer, len: usize) -> Option<NonNull<u8>> {
        self.resolve_mapped(pointer, len)
    }

    fn lock_address(&self, pointer: DsaPointer) -> Option<LockAddress> {
        Area::lock_address(self, pointer)
    }

    fn id(&self) -> usize {
        core::ptr::from_ref(*self).addr()
    }
}

// SAFETY: a heap allocates in its area, for its participant.
unsafe impl<L: RawLock> Allocator for Heap<'_, L> {
    fn participant(&self) -> &Participant<'_> {
        Heap::participant(self)
    }

    fn store_id(&self) -> usize {
        core::ptr::from_ref(self.area()).addr()
    }

    fn allocate_into(
        &self,
        destination: &AtomicDsaPointer,
        size: usize,
        align: usize,
    ) -> Result<(), MemoryError> {
        Heap::allocate_into(self, size, align, Flags::empty(), destination, |_| {})?;
        Ok(())
    }

    unsafe fn free_from(&self, destination: &AtomicDsaPointer) -> Result<(), MemoryError> {
        // SAFETY: the caller's promise.
        match unsafe { Heap::free_from(self, destination) } {
            Ok(()) => Ok(()),
            Err(FreeError::Refused(error)) => Err(error.into()),
            // The area is damaged: the memory is lost, the table is not.
            Err(_) => {
                destination.store(DsaPointer::INVALID, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn allocate_unpublished(&self, size: usize, align: usize) -> Result<DsaPointer, MemoryError> {
        Ok(Heap::allocate_unpublished(self, size, align, Flags::empty())?)
    }

    fn publish(
        &self,
        pointer: DsaPointer,
        destination: &AtomicDsaPointer,
    ) -> Result<(), MemoryError> {
        Ok(Heap::publish(self, pointer, destination)?)
    }

    fn settle(&self, pointer: DsaPointer) {
        // Refused only where the area is damaged.
        let _ = Heap::settle(self, pointer);
    }

    unsafe fn free(&self, pointer: DsaPointer) {
        // A refusal means that the area is damaged: the memory is lost, the table is not.
        // SAFETY: the caller's promise.
        let _ = unsafe { Heap::free(self, pointer) };
    }
}
