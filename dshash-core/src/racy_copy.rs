//! Reading an entry that somebody may be changing.
//!
//! A reader that takes no lock copies key and value out of an entry while a holder of the lock
//! may be writing them through a `&mut V`. Under the language's rules that is a data race, and
//! this module is the only place of this crate where one can happen. The argument:
//!
//! - The memory is mapped and readable (the store's promise), and every access is an atomic load
//!   of an aligned word inside the entry's slot: the race is between an atomic load and a plain
//!   store, which hardware treats as a load of some mixture of old and new bytes. Words of one
//!   width, the widest that the alignment allows, so that a store before is forwarded.
//! - What was read is plain data for which every bit pattern is valid (`FromBytes`), and is not
//!   looked at, but for comparing keys, until the partition's sequence word was found unchanged
//!   after an acquire fence: then no writer was active from before the first load to after the
//!   last, and the copy is what a reader with the lock would have seen.
//! - The loads are relaxed atomics, so that the compiler can neither repeat nor invent them, and
//!   cannot move them after the fence.
//!
//! Other participants are other processes for which the language has no rules at all; only a thread
//! of the same process makes the race a formal one. With the feature `locked-reads` reads take the
//! lock, so that the thread sanitizer can judge the rest; only tools that look from outside
//! ([`peek`](crate::peek)) copy like this then.

use core::mem::{MaybeUninit, size_of};
use core::ptr::NonNull;

use dsm_core::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Copies a `T` out of `offset` bytes into an entry's memory.
///
/// # Safety
///
/// `base` is aligned to 16 and the memory from there to `offset + size_of::<T>()`, rounded up to
/// 16, is readable. Any bytes must be a valid `T`, and a `T` must have no padding.
#[inline(always)]
pub(crate) unsafe fn copy_out<T>(base: NonNull<u8>, offset: usize) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    let out = value.as_mut_ptr().cast::<u8>();
    let mut done = 0;
    if offset % 8 == 0 {
        while done + 8 <= size_of::<T>() {
            // SAFETY: eight bytes of the source, by the caller's promise.
            let word = unsafe { load_u64(base, offset + done) };
            // SAFETY: `done + 8` bytes fit in the destination.
            let to = unsafe { out.add(done) };
            // SAFETY: as above; the destination is ours and need not be aligned.
            unsafe { to.cast::<u64>().write_unaligned(word) };
            done += 8;
        }
    }
    if offset % 4 == 0 {
        while done + 4 <= size_of::<T>() {
            // SAFETY: four bytes of the source.
            let word = unsafe { load_u32(base, offset + done) };
            // SAFETY: `done + 4` bytes fit in the destination.
            let to = unsafe { out.add(done) };
            // SAFETY: as above.
            unsafe { to.cast::<u32>().write_unaligned(word) };
            done += 4;
        }
    }
    while done < size_of::<T>() {
        // SAFETY: one byte of the source.
        let byte = unsafe { load_u8(base, offset + done) };
        // SAFETY: inside the destination.
        let to = unsafe { out.add(done) };
        // SAFETY: as above.
        unsafe { to.write(byte) };
        done += 1;
    }
    // SAFETY: all bytes were written, and any bytes are a valid `T`.
    unsafe { value.assume_init() }
}

/// Whether `bytes` are what lies `offset` bytes into an entry's memory.
///
/// # Safety
///
/// As for [`copy_out`], with `bytes.len()` for the size.
#[cfg(not(feature = "locked-reads"))]
#[inline(always)]
pub(crate) unsafe fn equal(base: NonNull<u8>, offset: usize, bytes: &[u8]) -> bool {
    let mut done = 0;
    if offset % 8 == 0 {
        while let Some(chunk) = bytes[done..].first_chunk::<8>() {
            // SAFETY: eight bytes of the source, by the caller's promise.
            if unsafe { load_u64(base, offset + done) } != u64::from_ne_bytes(*chunk) {
                return false;
            }
            done += 8;
        }
    }
    if offset % 4 == 0 {
        while let Some(chunk) = bytes[done..].first_chunk::<4>() {
            // SAFETY: four bytes of the source.
            if unsafe { load_u32(base, offset + done) } != u32::from_ne_bytes(*chunk) {
                return false;
            }
            done += 4;
        }
    }
    while done < bytes.len() {
        // SAFETY: one byte of the source.
        if unsafe { load_u8(base, offset + done) } != bytes[done] {
            return false;
        }
        done += 1;
    }
    true
}

/// # Safety
///
/// Eight readable bytes at `base + offset`, aligned.
#[inline(always)]
unsafe fn load_u64(base: NonNull<u8>, offset: usize) -> u64 {
    // SAFETY: inside the entry's memory.
    let at = unsafe { base.add(offset) };
    // SAFETY: readable and aligned; see the module on races.
    unsafe { at.cast::<AtomicU64>().as_ref() }.load(Ordering::Relaxed)
}

/// # Safety
///
/// Four readable bytes at `base + offset`, aligned.
#[inline(always)]
unsafe fn load_u32(base: NonNull<u8>, offset: usize) -> u32 {
    // SAFETY: inside the entry's memory.
    let at = unsafe { base.add(offset) };
    // SAFETY: readable and aligned; see the module on races.
    unsafe { at.cast::<AtomicU32>().as_ref() }.load(Ordering::Relaxed)
}

/// # Safety
///
/// A readable byte at `base + offset`.
#[inline(always)]
unsafe fn load_u8(base: NonNull<u8>, offset: usize) -> u8 {
    // SAFETY: inside the entry's memory.
    let at = unsafe { base.add(offset) };
    // SAFETY: readable; see the module on races.
    unsafe { at.cast::<AtomicU8>().as_ref() }.load(Ordering::Relaxed)
}

#[cfg(all(test, not(feature = "locked-reads")))]
mod tests {
    use super::*;

    #[repr(C, align(16))]
    struct Memory([u8; 64]);

    #[test]
    fn every_size_and_offset() {
        let mut memory = Memory([0; 64]);
        for (i, byte) in memory.0.iter_mut().enumerate() {
            *byte = i as u8 ^ 0x5a;
        }
        let base = NonNull::from(&mut memory.0).cast::<u8>();
        for offset in 0..24 {
            // SAFETY: 64 readable bytes, aligned to 16.
            let got: [u8; 23] = unsafe { copy_out(base, offset) };
            assert_eq!(got, memory.0[offset..offset + 23]);
            for len in 0..24 {
                let mut key = memory.0[offset..offset + len].to_vec();
                // SAFETY: as above.
                assert!(unsafe { equal(base, offset, &key) });
                for i in 0..len {
                    key[i] ^= 1;
                    // SAFETY: as above.
                    assert!(!unsafe { equal(base, offset, &key) }, "{offset} {len} {i}");
                    key[i] ^= 1;
                }
            }
        }
    }
}
