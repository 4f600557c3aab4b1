//! The bytes of an object: an aligned allocation that knows which of its pages are reserved.

use core::ops::Range;
use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use crate::PAGE;
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::ObjectInfo;

pub(super) struct Memory {
    base: NonNull<u8>,
    len: usize,
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
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(raw) else { handle_alloc_error(layout) };
        if fill != 0 {
            // SAFETY: the allocation is that long and nobody else has it yet.
            unsafe { base.write_bytes(fill, layout.size()) };
        }
        let pages = std::vec![false; layout.size() / PAGE];
        let memory = Self { base, len, reserved: Mutex::new(pages), used: used.clone() };
        memory.reserve(&(0..reserved));
        memory
    }

    /// A copy of the bytes, accounted to another machine. Nobody may write meanwhile.
    pub(super) fn copy(&self, used: &Arc<AtomicU64>) -> Self {
        let copy = Self::new(self.len, 0, 0, used);
        // SAFETY: both allocations are that long, and distinct.
        unsafe { copy.base.copy_from_nonoverlapping(self.base, Self::pages(self.len)) };
        let pages = self.table().clone();
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
