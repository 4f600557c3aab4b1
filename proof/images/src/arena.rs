//! The memory that simulated processes share.
//!
//! One private mapping at one address holds everything that a real system would keep alive beyond
//! a process: the system's own tables (module `system`) and the bytes of every object. Because it
//! is private to the *real* process, a `fork` is an exact copy of all shared memory, in which a
//! recovery can be tried without the original noticing: an image.
//!
//! Bytes are handed out once and never again, so that a late look at an object that is gone does
//! not see another one.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of address space; what is not touched costs nothing.
pub(crate) const SIZE: usize = 1 << 30;
/// Granularity of protection.
pub(crate) const PAGE: usize = 4096;

/// Where the arena starts.
static BASE: AtomicUsize = AtomicUsize::new(0);

/// Maps the arena.
pub(crate) fn map() {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping wherever the system likes it.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, prot, flags, -1, 0) };
    assert!(at != libc::MAP_FAILED, "no address space for the arena");
    // SAFETY: the range was mapped just now. Huge pages would make each copy of one cost a lot.
    let advised = unsafe { libc::madvise(at, SIZE, libc::MADV_NOHUGEPAGE) };
    assert!(advised == 0 || cfg!(not(target_os = "linux")));
    BASE.store(at.expose_provenance(), Ordering::Relaxed);
}

/// First byte.
pub(crate) fn base() -> NonNull<u8> {
    let at = std::ptr::with_exposed_provenance_mut(BASE.load(Ordering::Relaxed));
    NonNull::new(at).expect("the arena is mapped first of all")
}

/// Whether an address lies in it.
pub(crate) fn contains(address: usize) -> bool {
    address.wrapping_sub(BASE.load(Ordering::Relaxed)) < SIZE
}

/// The byte at an offset.
pub(crate) fn at(offset: usize) -> NonNull<u8> {
    assert!(offset < SIZE);
    // SAFETY: inside the mapping, as was just checked.
    unsafe { base().add(offset) }
}

/// Fills a range that nobody has been given yet.
pub(crate) fn fill(offset: usize, len: usize, byte: u8) {
    assert!(offset + len <= SIZE);
    // SAFETY: inside the mapping, as was just checked; the one thread there is writes it.
    unsafe { at(offset).write_bytes(byte, len) };
}

/// Refuses, or allows, stores to its first `bytes`: all that was handed out.
pub(crate) fn protect(bytes: usize, refuse: bool) {
    let write = if refuse { 0 } else { libc::PROT_WRITE };
    let at = base().as_ptr().cast();
    // SAFETY: within the arena's own range; nobody runs beside this thread.
    let done = unsafe { libc::mprotect(at, bytes, libc::PROT_READ | write) };
    assert_eq!(done, 0, "mprotect");
}

/// The word at an address inside the arena, aligned to 8.
pub(crate) fn word(address: usize) -> u64 {
    debug_assert!(contains(address) && address.is_multiple_of(8));
    let at = std::ptr::with_exposed_provenance::<u64>(address);
    // SAFETY: inside the mapping and aligned; the one thread there is reads it.
    unsafe { at.read_volatile() }
}
