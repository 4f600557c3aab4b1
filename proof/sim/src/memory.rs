//! The bytes of an object: an aligned allocation that knows which of its pages are reserved.
//!
//! Whoever touches a page that is not reserved works by luck: the real system may have no memory
//! for it. Under a fuzzer the address sanitizer is told so, and makes it an error.

use core::ops::Range;
use core::ptr::NonNull;
use std::alloc::{Layout, dealloc, handle_alloc_error};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use crate::PAGE;
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::ObjectInfo;

pub(super) struct Memory {
    base: NonNull<u8>,
    len: usize,
    /// What pages are filled with when they are first backed.
    fill: u8,
    /// One entry a page: whether it is backed.
    reserved: Mutex<Vec<bool>>,
    /// The machine's count of reserved bytes.
    used: Arc<AtomicU64>,
}

// SAFETY: the allocation is shared memory: all access to its bytes is the users' to order.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// `bytes` rounded up to whole pages.
    pub(super) fn pages(bytes: usize) -> usize {
        bytes.div_ceil(PAGE) * PAGE
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(Self::pages(len), PAGE).expect("sizes are checked by the caller")
    }

    pub(super) fn new(len: usize, reserved: usize, fill: u8, used: &Arc<AtomicU64>) -> Self {
        let layout = Self::layout(len);
        // SAFETY: objects have at least one byte, hence at least one page.
        let raw = unsafe { watch::allocate(layout) };
        let Some(base) = NonNull::new(raw) else { handle_alloc_error(layout) };
        watch::forbid(base, layout.size());
        let pages = std::vec![false; layout.size() / PAGE];
        let memory = Self { base, len, fill, reserved: Mutex::new(pages), used: used.clone() };
        memory.reserve(&(0..reserved));
        memory
    }

    /// A copy of the bytes, accounted to another machine. Nobody may write meanwhile.
    pub(super) fn copy(&self, used: &Arc<AtomicU64>) -> Self {
        let copy = Self::new(self.len, 0, self.fill, used);
        let pages = self.table().clone();
        for page in (0..pages.len()).filter(|page| pages[*page] || !cfg!(fuzzing)) {
            watch::allow(copy.page(page), PAGE);
            // SAFETY: both allocations are that long, and distinct.
            unsafe { copy.page(page).copy_from_nonoverlapping(self.page(page), PAGE) };
        }
        let bytes = pages.iter().filter(|page| **page).count() * PAGE;
        copy.used.fetch_add(bytes as u64, Ordering::Relaxed);
        *copy.table() = pages;
        copy
    }

    pub(super) fn write(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.len);
        let from = NonNull::from(bytes).cast::<u8>();
        // SAFETY: the length was checked, and the caller has just made this allocation.
        unsafe { self.base.copy_from_nonoverlapping(from, bytes.len()) };
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn page(&self, page: usize) -> NonNull<u8> {
        debug_assert!(page * PAGE < Self::pages(self.len));
        // SAFETY: a page of the allocation.
        unsafe { self.base.add(page * PAGE) }
    }

    fn table(&self) -> MutexGuard<'_, Vec<bool>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page_range(&self, range: &Range<usize>) -> Range<usize> {
        range.start / PAGE..range.end.min(self.len).div_ceil(PAGE)
    }

    /// Bytes that reserving `range` would add.
    pub(super) fn missing(&self, range: &Range<usize>) -> u64 {
        let table = self.table();
        let missing = self.page_range(range).filter(|page| !table[*page]).count();
        (missing * PAGE) as u64
    }

    pub(super) fn reserve(&self, range: &Range<usize>) {
        let mut table = self.table();
        for page in self.page_range(range) {
            if !table[page] {
                table[page] = true;
                self.used.fetch_add(PAGE as u64, Ordering::Relaxed);
                watch::allow(self.page(page), PAGE);
                if self.fill != 0 || cfg!(fuzzing) {
                    // SAFETY: a page of the allocation; nobody uses what was not backed before.
                    unsafe { self.page(page).write_bytes(self.fill, PAGE) };
                }
            }
        }
    }

    pub(super) fn info(&self, handle: Option<SegmentHandle>, id: ObjectId) -> ObjectInfo {
        let pages = self.table().iter().filter(|page| **page).count();
        ObjectInfo {
            handle,
            size: self.len as u64,
            reserved: (pages * PAGE) as u64,
            owner: 0,
            mode: 0o600,
            id,
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let pages = self.table().iter().filter(|page| **page).count();
        self.used.fetch_sub((pages * PAGE) as u64, Ordering::Relaxed);
        // SAFETY: allocated by `new` with this layout, and this is the last owner.
        unsafe { dealloc(self.base.as_ptr(), Self::layout(self.len)) };
    }
}

/// What the address sanitizer is told.
#[cfg(fuzzing)]
mod watch {
    use core::ffi::c_void;
    use core::ptr::NonNull;

    unsafe extern "C" {
        fn __asan_poison_memory_region(at: *const c_void, len: usize);
        fn __asan_unpoison_memory_region(at: *const c_void, len: usize);
    }

    pub(super) use std::alloc::alloc as allocate;

    /// Makes it an error to touch these bytes.
    pub(super) fn forbid(at: NonNull<u8>, len: usize) {
        // SAFETY: an allocation of the parent module's, whose bytes are not looked at.
        unsafe { __asan_poison_memory_region(at.as_ptr().cast(), len) };
    }

    /// Undoes `forbid`.
    pub(super) fn allow(at: NonNull<u8>, len: usize) {
        // SAFETY: as above.
        unsafe { __asan_unpoison_memory_region(at.as_ptr().cast(), len) };
    }
}

/// Nobody watches.
#[cfg(not(fuzzing))]
mod watch {
    use core::ptr::NonNull;
    pub(super) use std::alloc::alloc_zeroed as allocate;

    pub(super) fn forbid(_: NonNull<u8>, _: usize) {}
    pub(super) fn allow(_: NonNull<u8>, _: usize) {}
}
