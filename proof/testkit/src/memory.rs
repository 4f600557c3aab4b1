//! Plain access to mappings for tests: bytes and words at an offset, checked against the length.

use std::ptr::NonNull;

use dsm_core::handle::SegmentHandle;
use dsm_core::provider::Mapping;
use dsm_core::sync::{AtomicU32, AtomicU64};

/// A handle that differs for each `n`.
///
/// # Panics
///
/// Never: the random part is not zero.
#[must_use]
pub fn handle(n: u32) -> SegmentHandle {
    SegmentHandle::compose(0x5eed_0000_0000_0000 | u64::from(n) << 20, n % 4096, false).unwrap()
}

fn at(mapping: &Mapping, offset: usize, len: usize) -> NonNull<u8> {
    assert!(offset.checked_add(len).is_some_and(|end| end <= mapping.len), "outside the mapping");
    // SAFETY: within the mapping, as was just checked.
    unsafe { mapping.base.add(offset) }
}

/// Reads a byte.
///
/// # Panics
///
/// Outside the mapping.
#[must_use]
pub fn byte(mapping: &Mapping, offset: usize) -> u8 {
    let at = at(mapping, offset, 1);
    // SAFETY: mapped for reading; other processes write it while this one waits for their word
    // only.
    unsafe { at.read_volatile() }
}

/// Writes a byte.
///
/// # Panics
///
/// Outside the mapping.
pub fn set_byte(mapping: &Mapping, offset: usize, value: u8) {
    let at = at(mapping, offset, 1);
    // SAFETY: mapped for writing, as these tests only do with mappings that are.
    unsafe { at.write_volatile(value) };
}

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(mapping: &Mapping) -> bool {
    (0..mapping.len).all(|offset| byte(mapping, offset) == 0)
}

/// The 32-bit word at an offset.
///
/// # Panics
///
/// Outside the mapping, or misaligned.
#[must_use]
pub fn word(mapping: &Mapping, offset: usize) -> &AtomicU32 {
    assert_eq!(offset % 4, 0);
    let at = at(mapping, offset, 4).cast::<u32>();
    // SAFETY: mapped for the rest of the test, aligned (a page is), and accessed as an atomic by
    // all.
    unsafe { AtomicU32::from_ptr(at.as_ptr()) }
}

/// The 64-bit word at an offset.
///
/// # Panics
///
/// Outside the mapping, or misaligned.
#[must_use]
pub fn long(mapping: &Mapping, offset: usize) -> &AtomicU64 {
    assert_eq!(offset % 8, 0);
    let at = at(mapping, offset, 8).cast::<u64>();
    // SAFETY: mapped for the rest of the test, aligned (a page is), and accessed as an atomic by
    // all.
    unsafe { AtomicU64::from_ptr(at.as_ptr()) }
}
