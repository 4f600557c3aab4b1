//! Where a table's memory comes from.
//!
//! A table asks little of its area: to resolve a pointer ([`Store`]), and, for those who change
//! something, to allocate straight into a word and to free what a word points to ([`Allocator`]).
//! An area of `dsa-core` is a store and its heaps are allocators; tests and models implement both
//! over plain memory.
//!
//! The allocator comes as an object: it is called once in hundreds of operations.

use core::ptr::NonNull;

use dsa_core::{Area, AtomicDsaPointer, DsaPointer, Flags, Heap};
use dsm_core::handle::LockAddress;
use dsm_core::lock::RawLock;
use dsm_core::participant::Participant;
use dsm_core::sync::Ordering;

use crate::error::MemoryError;

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

    /// The address of `len` bytes at `pointer`, or `None` if they are not all in a segment of
    /// the area that this process has, or can get, mapped. Takes any bits.
    fn resolve(&self, pointer: DsaPointer, len: usize) -> Option<NonNull<u8>>;

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

    /// Stores 0 in `destination` and frees what it named, in this order: a kill in between loses
    /// the memory, where the other order might free what somebody else was given meanwhile.
    ///
    /// # Safety
    ///
    /// Nothing may write to the memory any more, and only the caller may use `destination`.
    unsafe fn free_from(&self, destination: &AtomicDsaPointer) {
        let pointer = destination.load(Ordering::Relaxed);
        destination.store(DsaPointer::INVALID, Ordering::Relaxed);
        dsm_core::sync::compiler_fence();
        // SAFETY: the caller's promise.
        unsafe { self.free(pointer) };
    }

    /// Allocates without a word to name the memory: what a table's creator does, whose caller has
    /// yet to store its pointer somewhere.
    ///
    /// # Errors
    ///
    /// See [`MemoryError`].
    fn allocate(&self, size: usize, align: usize) -> Result<DsaPointer, MemoryError>;

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
    fn resolve(&self, pointer: DsaPointer, len: usize) -> Option<NonNull<u8>> {
        self.resolve_range(pointer, len)
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

    fn allocate(&self, size: usize, align: usize) -> Result<DsaPointer, MemoryError> {
        Ok(self.allocate_aligned(size, align, Flags::empty())?)
    }

    unsafe fn free_from(&self, destination: &AtomicDsaPointer) {
        let pointer = destination.load(Ordering::Relaxed);
        // Its allocator may have died with the pointer stored and the object not yet marked as
        // published. Then anyone who looks for the property of the dead frees it as soon as
        // `destination` does not name it any more, and what is freed below might be what somebody
        // else was given at the same place. Marked now, it is nobody's but ours to free.
        let _ = self.settle(pointer);
        destination.store(DsaPointer::INVALID, Ordering::Relaxed);
        dsm_core::sync::compiler_fence();
        // SAFETY: the caller's promise.
        unsafe { Allocator::free(self, pointer) };
    }

    unsafe fn free(&self, pointer: DsaPointer) {
        // A refusal means that the area is damaged: the memory is lost, the table is not.
        // SAFETY: the caller's promise.
        let _ = unsafe { Heap::free(self, pointer) };
    }
}
