//! Allocators inside one process. Their pointers are addresses.

use libmimalloc_sys::{mi_free, mi_malloc};

use crate::interface::Heap;

/// Microsoft's allocator, called beside the global one, and as C programs call it: asked for an
/// alignment, as by `GlobalAlloc`, it takes 20 instructions more, which our objects don't need.
pub struct Mimalloc;

impl Heap for Mimalloc {
    type Pointer = *mut u8;

    #[inline(never)]
    fn allocate(&self, bytes: usize) -> *mut u8 {
        // SAFETY: mi_malloc has no conditions.
        unsafe { mi_malloc(bytes) }.cast()
    }

    #[inline(never)]
    unsafe fn free(&self, pointer: *mut u8, _bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { mi_free(pointer.cast()) }
    }

    #[inline(always)]
    fn resolve(&self, pointer: *mut u8) -> *mut u64 {
        pointer.cast()
    }
}

/// The C library's allocator.
pub struct Glibc;

impl Heap for Glibc {
    type Pointer = *mut u8;

    #[inline(never)]
    fn allocate(&self, bytes: usize) -> *mut u8 {
        // SAFETY: malloc has no conditions.
        unsafe { libc::malloc(bytes) }.cast()
    }

    #[inline(never)]
    unsafe fn free(&self, pointer: *mut u8, _bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { libc::free(pointer.cast()) }
    }

    #[inline(always)]
    fn resolve(&self, pointer: *mut u8) -> *mut u64 {
        pointer.cast()
    }
}
