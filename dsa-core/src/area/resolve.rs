//! From pointers to addresses, and back.

use core::ptr::NonNull;

use dsm_core::handle::{LockAddress, SegmentHandle};
use dsm_core::lock::RawLock;

use super::Area;
use crate::error::Error;
use crate::pointer::{DsaPointer, DsaPtr};

impl<L: RawLock> Area<'_, L> {
    /// The address of `pointer` in this process. Attaches the segment when needed. Constant time
    /// otherwise: one entry of a table.
    ///
    /// `None` if the pointer is invalid, and if this process has not attached its segment and
    /// can't: the segment is gone, or the system refuses to map it
    /// ([`try_resolve_range`](Self::try_resolve_range) says which). A segment that others have
    /// given back is found as long as this process has it mapped, which is until it next allocates
    /// or maintains a heap of the area: an address proves nothing about what is there.
    ///
    /// The memory behind it may be freed, or handed out anew, by anyone at any time unless the
    /// caller knows better: using it is `unsafe`.
    #[doc(alias = "dsa_get_address")]
    #[inline]
    #[must_use]
    pub fn resolve(&self, pointer: DsaPointer) -> Option<NonNull<u8>> {
        match self.local.address(pointer, 1) {
            Some(at) => Some(at),
            None => self.resolve_unmapped(pointer, 1).ok(),
        }
    }

    /// As [`resolve`](Self::resolve), of a range: `None` also if `bytes` bytes from `pointer` on
    /// leave the segment. What it returns can be read without a fault as long as the area is
    /// attached, whatever became of the object (zeros, if its segment is gone).
    #[inline]
    #[must_use]
    pub fn resolve_range(&self, pointer: DsaPointer, bytes: usize) -> Option<NonNull<u8>> {
        match self.local.address(pointer, bytes) {
            Some(at) => Some(at),
            None => self.resolve_unmapped(pointer, bytes).ok(),
        }
    }

    /// As [`resolve_range`](Self::resolve_range), and says why there is no address.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPointer`] if the pointer is invalid, its segment is gone, or the range
    /// leaves it. Any other error means that the segment could not be attached now, and the same
    /// call may succeed later: [`Error::Namespace`] with what the platform said, [`Error::Busy`].
    #[inline]
    pub fn try_resolve_range(
        &self,
        pointer: DsaPointer,
        bytes: usize,
    ) -> Result<NonNull<u8>, Error> {
        match self.local.address(pointer, bytes) {
            Some(at) => Ok(at),
            None => self.resolve_unmapped(pointer, bytes),
        }
    }

    /// As [`resolve_range`](Self::resolve_range), but `None` also where the segment would have to
    /// be attached first.
    #[inline(always)]
    #[must_use]
    pub fn resolve_mapped(&self, pointer: DsaPointer, bytes: usize) -> Option<NonNull<u8>> {
        self.local.address(pointer, bytes)
    }

    #[cold]
    #[inline(never)]
    fn resolve_unmapped(&self, pointer: DsaPointer, bytes: usize) -> Result<NonNull<u8>, Error> {
        let nowhere = Error::InvalidPointer(pointer);
        if !pointer.is_valid() {
            return Err(nowhere);
        }
        let memory = self.map(pointer.key()).map_err(|e| match e {
            // It may name the segment alone, which is gone.
            Error::InvalidPointer(_) => nowhere,
            e => e,
        })?;
        let (bytes, offset) = (bytes as u64, pointer.offset());
        if offset >= memory.len() || bytes > memory.len() - offset {
            return Err(nowhere);
        }
        // SAFETY: the offset is inside the mapping.
        Ok(unsafe { memory.base().add(offset as usize) })
    }

    /// How a lock at `pointer` is named in the namespace; `None` as for [`resolve`](Self::resolve).
    #[must_use]
    pub fn lock_address(&self, pointer: DsaPointer) -> Option<LockAddress> {
        self.resolve(pointer)?;
        match SegmentHandle::from_raw(self.local.handle(pointer)?) {
            Some(handle) => Some(self.namespace.lock_address(handle, pointer.offset())),
            None => Some(LockAddress::new(self.parent_slot, self.place + pointer.offset())),
        }
    }

    /// A reference to what `pointer` points to; `None` if it is misaligned or leaves its segment,
    /// and as for [`resolve`](Self::resolve).
    ///
    /// # Safety
    ///
    /// There must be an allocated, initialised `T`, which nobody frees or changes (but through
    /// atomics and the like) for the reference's life.
    #[inline]
    #[must_use]
    pub unsafe fn as_ref<T>(&self, pointer: DsaPtr<T>) -> Option<&T> {
        let at = self.resolve_range(pointer.pointer(), size_of::<T>())?.cast::<T>();
        // SAFETY: the caller vouches for the object; bounds and alignment are checked.
        at.is_aligned().then_some(unsafe { at.as_ref() })
    }

    /// A unique reference to what `pointer` points to; `None` as for [`as_ref`](Self::as_ref).
    ///
    /// # Safety
    ///
    /// As for [`as_ref`](Self::as_ref), and nobody else may use the object at all meanwhile.
    #[expect(clippy::mut_from_ref, reason = "the memory is not the area's own: the caller vouches")]
    #[inline]
    #[must_use]
    pub unsafe fn as_mut<T>(&self, pointer: DsaPtr<T>) -> Option<&mut T> {
        let mut at = self.resolve_range(pointer.pointer(), size_of::<T>())?.cast::<T>();
        // SAFETY: the caller vouches for the object; bounds and alignment are checked.
        at.is_aligned().then_some(unsafe { at.as_mut() })
    }

    /// Where an address of this process lies in the area, if it does. Linear in the number of
    /// segments.
    #[must_use]
    pub fn pointer_to(&self, address: *const u8) -> Option<DsaPointer> {
        self.local.reverse(address as usize)
    }
}
