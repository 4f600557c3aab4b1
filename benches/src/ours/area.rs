//! Our allocator, with an explicit participant, as those use it who work on the cores.

use std::ptr::NonNull;

use dsa_core::{Area, AreaLocal, DsaPointer, Heap, HeapLocal, Options};
use dsm_core::lock::rw::RwLock;
use dsm_core::participant::Participant;

use super::home::{Home, forever};
use crate::allocator;

/// This thread's heap of an area in a namespace of its own.
///
/// What borrows from the namespace is leaked: it is not used after the namespace was left.
pub struct OurHeap {
    heap: &'static Heap<'static, RwLock>,
    area: &'static Area<'static, RwLock>,
    home: NonNull<Home>,
}

impl OurHeap {
    /// A new area.
    ///
    /// # Panics
    ///
    /// If shared memory refuses.
    #[must_use]
    pub fn new() -> Self {
        let home = Box::leak(Box::new(Home::new(0)));
        let at = NonNull::from(&mut *home);
        let home: &'static Home = home;
        let local = forever(AreaLocal::new());
        let area: &'static Area<'static, RwLock> = forever(
            Area::create(home.namespace(), &Options::default(), local).expect("create an area"),
        );
        let participant: &'static Participant<'static> = forever(home.participant());
        let hints = forever(HeapLocal::default());
        let heap = forever(area.heap(participant, hints).expect("this thread is registered"));
        Self { heap, area, home: at }
    }
}

impl Default for OurHeap {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for OurHeap {
    fn drop(&mut self) {
        // SAFETY: from the `Box` in `new`; heap and area, which borrow from it, are never used
        // again and never dropped.
        drop(unsafe { Box::from_raw(self.home.as_ptr()) });
    }
}

impl allocator::Heap for OurHeap {
    type Pointer = DsaPointer;

    #[inline]
    fn allocate(&self, bytes: usize) -> DsaPointer {
        self.heap.allocate(bytes).expect("memory")
    }

    #[inline]
    unsafe fn free(&self, pointer: DsaPointer, _bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.heap.free(pointer) }.expect("allocated");
    }

    #[inline]
    fn resolve(&self, pointer: DsaPointer) -> *mut u64 {
        self.area.resolve(pointer).expect("allocated").cast().as_ptr()
    }
}
