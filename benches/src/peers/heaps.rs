//! Allocators inside one process. Their pointers are addresses.

use std::alloc::{GlobalAlloc, Layout};

use crate::interface::Heap;

/// Microsoft's allocator, called beside the global one.
pub struct Mimalloc;

/// What it is asked for: the alignment that ours gives.
fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).expect("a small layout")
}

impl Heap for Mimalloc {
    type Pointer = *mut u8;

    #[inline]
    fn allocate(&self, bytes: usize) -> *mut u8 {
        // SAFETY: no work asks for zero bytes.
        unsafe { mimalloc::MiMalloc.alloc(layout(bytes)) }
    }

    #[inline]
    unsafe fn free(&self, pointer: *mut u8, bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { mimalloc::MiMalloc.dealloc(pointer, layout(bytes)) }
    }

    #[inline]
    fn resolve(&self, pointer: *mut u8) -> *mut u64 {
        pointer.cast()
    }
}

/// The C library's allocator.
pub struct Glibc;

impl Heap for Glibc {
    type Pointer = *mut u8;

    #[inline]
    fn allocate(&self, bytes: usize) -> *mut u8 {
        // SAFETY: malloc has no conditions.
        unsafe { libc::malloc(bytes) }.cast()
    }

    #[inline]
    unsafe fn free(&self, pointer: *mut u8, _bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { libc::free(pointer.cast()) }
    }

    #[inline]
    fn resolve(&self, pointer: *mut u8) -> *mut u64 {
        pointer.cast()
    }
}
