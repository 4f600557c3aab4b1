//! Our allocator: with an explicit participant, as those use it who work on the cores, and through
//! the registry.

use std::ptr::NonNull;

use dsa_core::{AreaLocal, DsaPointer, Heap as Allocator, HeapLocal, Options};
use dsm_core::lock::rw::RwLock;
use dsm_core::participant::Participant;
use dsm_registry::{Area, DsaPtr, Registry};

use super::home::{Home, forever, registry};
use crate::interface::Heap;

pub(super) type CoreArea = dsa_core::Area<'static, RwLock>;

/// This thread's heap of an area in a namespace of its own.
///
/// What borrows from the namespace is leaked: it is not used after the namespace was left.
pub struct CoreHeap {
    pub(super) heap: &'static Allocator<'static, RwLock>,
    pub(super) area: &'static CoreArea,
    home: NonNull<Home>,
}

impl CoreHeap {
    /// A new area.
    ///
    /// # Panics
    ///
    /// If shared memory refuses.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let home = Box::leak(Box::new(Home::new(0)));
        let at = NonNull::from(&mut *home);
        let home: &'static Home = home;
        let local = forever(AreaLocal::new());
        let area: &'static CoreArea =
            forever(CoreArea::create(home.namespace(), options, local).expect("create an area"));
        let participant: &'static Participant<'static> = forever(home.participant());
        let hints = forever(HeapLocal::default());
        let heap = forever(area.heap(participant, hints).expect("this thread is registered"));
        Self { heap, area, home: at }
    }
}

impl Drop for CoreHeap {
    fn drop(&mut self) {
        // SAFETY: from the `Box` in `new`; heap and area, which borrow from it, are never used
        // again and never dropped.
        drop(unsafe { Box::from_raw(self.home.as_ptr()) });
    }
}

impl Heap for CoreHeap {
    type Pointer = DsaPointer;

    #[inline(never)]
    fn allocate(&self, bytes: usize) -> DsaPointer {
        self.heap.allocate(bytes).expect("memory")
    }

    #[inline(never)]
    unsafe fn free(&self, pointer: DsaPointer, _bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.heap.free(pointer) }.expect("allocated");
    }

    #[inline(always)]
    fn resolve(&self, pointer: DsaPointer) -> *mut u64 {
        self.area.resolve(pointer).expect("allocated").cast().as_ptr()
    }
}

/// A named area for values of that many words, which are not written.
pub struct RegistryHeap<const WORDS: usize> {
    area: Area,
    _registry: Registry,
}

impl<const WORDS: usize> RegistryHeap<WORDS> {
    /// A new area.
    ///
    /// # Panics
    ///
    /// If shared memory refuses.
    #[must_use]
    pub fn new() -> Self {
        let registry = registry();
        let area = registry.area("heap").expect("create an area");
        Self { area, _registry: registry }
    }
}

impl<const WORDS: usize> Default for RegistryHeap<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const WORDS: usize> Heap for RegistryHeap<WORDS> {
    type Pointer = DsaPtr<[u64; WORDS]>;

    #[inline(never)]
    fn allocate(&self, bytes: usize) -> Self::Pointer {
        debug_assert_eq!(bytes, size_of::<[u64; WORDS]>());
        self.area.allocate_unwritten().expect("memory")
    }

    #[inline(never)]
    unsafe fn free(&self, pointer: Self::Pointer, _bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.area.free(pointer) }.expect("allocated");
    }

    #[inline(always)]
    fn resolve(&self, pointer: Self::Pointer) -> *mut u64 {
        self.area.resolve(pointer.pointer()).expect("allocated").cast().as_ptr()
    }
}
