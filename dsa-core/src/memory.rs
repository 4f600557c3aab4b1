//! A mapped segment as bounds-checked shared memory.
//!
//! Everything off the fast path goes through [`Memory`]: an offset becomes a reference only if
//! it lies inside the mapping and is aligned, so that bytes corrupted by a peer give an error and
//! not an access out of bounds. What it hands out consists of atomics only, of which any bytes
//! are a value.

use core::marker::PhantomData;
use core::ptr::NonNull;

use dsm_core::sync::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use crate::error::Corruption;

/// Types that may be laid over shared memory.
///
/// # Safety
///
/// `repr(C)` or `repr(transparent)` of atomics (or plain arrays of them) without padding that
/// anything depends on: any bytes are a value, and access through `&Self` is atomic.
pub(crate) unsafe trait Shared {}

// SAFETY: atomics.
unsafe impl Shared for AtomicU8 {}
// SAFETY: atomics.
unsafe impl Shared for AtomicU16 {}
// SAFETY: atomics.
unsafe impl Shared for AtomicU32 {}
// SAFETY: atomics.
unsafe impl Shared for AtomicU64 {}

/// A mapped segment (or the range of one that an in-place area lies in), for `'m`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory<'m> {
    base: NonNull<u8>,
    len: u64,
    _mapped: PhantomData<&'m AtomicU8>,
}

// SAFETY: it hands out references to atomics only, as `&'m [AtomicU8]` would.
unsafe impl Send for Memory<'_> {}
// SAFETY: as above.
unsafe impl Sync for Memory<'_> {}

impl<'m> Memory<'m> {
    /// The memory at `base`.
    ///
    /// # Safety
    ///
    /// `len` bytes from `base`, which is aligned to 64, must stay mapped for reads and writes for
    /// `'m`, and be accessed by atomics only as far as they are metadata.
    pub(crate) unsafe fn new(base: NonNull<u8>, len: u64) -> Self {
        Self { base, len, _mapped: PhantomData }
    }

    /// First byte.
    #[inline]
    pub(crate) fn base(self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes.
    #[inline]
    pub(crate) fn len(self) -> u64 {
        self.len
    }

    /// The `T` at `offset`.
    #[inline]
    pub(crate) fn at<T: Shared>(self, offset: u64) -> Result<&'m T, Corruption> {
        let end = offset.checked_add(size_of::<T>() as u64);
        if end.is_none_or(|end| end > self.len) || offset % align_of::<T>() as u64 != 0 {
            return Err(Corruption::new("an offset that leaves its segment", offset));
        }
        // SAFETY: `offset` was just checked to lie inside the mapping.
        let at = unsafe { self.base.add(offset as usize) };
        // SAFETY: inside the mapping, aligned, of atomics only (`Shared`), mapped for 'm.
        Ok(unsafe { at.cast::<T>().as_ref() })
    }

    /// The address of `bytes` bytes at `offset`.
    #[inline]
    pub(crate) fn range(self, offset: u64, bytes: u64) -> Result<NonNull<u8>, Corruption> {
        if offset.checked_add(bytes).is_none_or(|end| end > self.len) {
            return Err(Corruption::new("an offset that leaves its segment", offset));
        }
        // SAFETY: `offset` was just checked to lie inside the mapping.
        Ok(unsafe { self.base.add(offset as usize) })
    }

    /// Zeroes a range whose bounds are multiples of 8, by relaxed words: late optimistic readers
    /// may still look at it.
    pub(crate) fn zero(self, offset: u64, bytes: u64) -> Result<(), Corruption> {
        self.range(offset, bytes)?;
        for word in (offset..offset + bytes).step_by(8) {
            self.at::<AtomicU64>(word)?.store(0, dsm_core::sync::Ordering::Relaxed);
        }
        Ok(())
    }
}
