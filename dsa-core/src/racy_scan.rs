//! Looking at sixteen truth bytes at once.
//!
//! A truth byte is an `AtomicU8` that is otherwise read and written as such. To find free objects
//! fast, its owner looks at sixteen neighbours with one vector load while others may be storing
//! into single ones of them. In the language's memory model that is a data race: an access that
//! is not atomic, beside atomic ones of another width. This module is the only place where it
//! happens, and this is why it is harmless:
//!
//! * What the load returns is a **hint**. Before an object is taken its own byte is read as an
//!   `AtomicU8` (with `Acquire`), and only 0 lets it go on. A wrong 0 costs a second look, a wrong
//!   1 an object that is found later.
//! * On the processors it is compiled for, a vector load beside byte stores returns, for each byte,
//!   a value that this byte had: bytes don't tear.
//! * The load is done by an intrinsic (or by an atomic word), through which the compiler doesn't
//!   reason about the values: there is no second load it could assume to be equal.
//!
//! Under loom and thread sanitizer, and on processors without the intrinsic, the same function is
//! a loop of atomic byte loads.

use dsm_core::sync::{AtomicU8, Ordering::Relaxed};

/// Bit `i` is set if byte `i` of the `count` (at most 64) bytes at `at` was 0.
///
/// # Safety
///
/// `count` rounded up to a multiple of 16 bytes from `at` must be mapped (`count` bytes, if that
/// is below 16), and used as truth bytes or padding of them only.
#[inline]
pub(crate) unsafe fn zeros(at: *const AtomicU8, count: u32) -> u64 {
    let count = count.min(64);
    if count < 16 {
        // SAFETY: passed on.
        return unsafe { bytewise(at, count) };
    }
    let mut found = 0;
    for chunk in 0..count.div_ceil(16) {
        // SAFETY: within the range that the caller vouches for.
        let at = unsafe { at.add(chunk as usize * 16) };
        // SAFETY: as above: sixteen mapped bytes.
        found |= u64::from(unsafe { sixteen(at) }) << (16 * chunk);
    }
    if count == 64 { found } else { found & ((1 << count) - 1) }
}

/// Whether each of the `count` bytes at `at` was 0, one atomic byte after the other: no race.
///
/// # Safety
///
/// `count` bytes from `at` must be mapped, and used as truth bytes only.
pub(crate) unsafe fn are_zero(at: *const AtomicU8, count: u32) -> bool {
    (0..count as usize).all(|index| {
        // SAFETY: within the range that the caller vouches for.
        let byte = unsafe { at.add(index) };
        // SAFETY: a truth byte, mapped.
        let byte = unsafe { &*byte };
        byte.load(Relaxed) == 0
    })
}

/// Whether the sixteen aligned bytes around `at` were all 0.
///
/// # Safety
///
/// They must be mapped, and used as truth bytes or padding of them only.
#[inline(always)]
pub(crate) unsafe fn neighbours_are_free(at: *const AtomicU8) -> bool {
    let first = at.map_addr(|address| address & !15);
    // SAFETY: passed on.
    let free = unsafe { sixteen(first) };
    free == u16::MAX
}

/// The same as [`zeros`], one atomic byte after the other.
///
/// # Safety
///
/// As for [`zeros`], for `count` bytes.
unsafe fn bytewise(at: *const AtomicU8, count: u32) -> u64 {
    let mut found = 0;
    for index in 0..count {
        // SAFETY: within the range that the caller vouches for.
        let byte = unsafe { at.add(index as usize) };
        // SAFETY: a truth byte, mapped.
        let byte = unsafe { &*byte };
        found |= u64::from(byte.load(Relaxed) == 0) << index;
    }
    found
}

/// # Safety
///
/// Sixteen truth bytes at `at` must be mapped.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(loom), not(dsm_tsan)))]
#[inline(always)]
unsafe fn sixteen(at: *const AtomicU8) -> u16 {
    use core::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_setzero_si128,
    };
    // SAFETY: sixteen mapped bytes; see the essay for the race.
    let bytes = unsafe { _mm_loadu_si128(at.cast::<__m128i>()) };
    // SSE2 is part of every x86-64 this is compiled for (cfg above).
    // SAFETY: registers only.
    let zero = unsafe { _mm_setzero_si128() };
    // SAFETY: registers only.
    let equal = unsafe { _mm_cmpeq_epi8(bytes, zero) };
    // SAFETY: registers only.
    unsafe { _mm_movemask_epi8(equal) as u16 }
}

/// # Safety
///
/// Sixteen truth bytes at `at` must be mapped.
#[cfg(all(target_arch = "aarch64", target_feature = "neon", not(loom), not(dsm_tsan)))]
#[inline(always)]
unsafe fn sixteen(at: *const AtomicU8) -> u16 {
    use core::arch::aarch64::{vceqzq_u8, vget_lane_u64, vld1q_u8, vshrn_n_u16};
    use core::arch::aarch64::{vreinterpret_u64_u8, vreinterpretq_u16_u8};
    // SAFETY: sixteen mapped bytes; see the essay for the race.
    let bytes = unsafe { vld1q_u8(at.cast::<u8>()) };
    // SAFETY: registers only.
    let equal = unsafe { vceqzq_u8(bytes) };
    // SAFETY: registers only.
    let wide = unsafe { vreinterpretq_u16_u8(equal) };
    // SAFETY: registers only.
    let nibbles = unsafe { vshrn_n_u16::<4>(wide) };
    // SAFETY: registers only.
    let word = unsafe { vreinterpret_u64_u8(nibbles) };
    // SAFETY: registers only.
    let mut word = unsafe { vget_lane_u64::<0>(word) };
    // One bit of each nibble: the four bits of a nibble are equal.
    let mut found = 0;
    word &= 0x1111_1111_1111_1111;
    while word != 0 {
        found |= 1 << (word.trailing_zeros() / 4);
        word &= word - 1;
    }
    found
}

/// # Safety
///
/// Sixteen truth bytes at `at` must be mapped.
#[cfg(not(all(
    any(
        all(target_arch = "x86_64", target_feature = "sse2"),
        all(target_arch = "aarch64", target_feature = "neon")
    ),
    not(loom),
    not(dsm_tsan)
)))]
unsafe fn sixteen(at: *const AtomicU8) -> u16 {
    // SAFETY: passed on.
    unsafe { bytewise(at, 16) as u16 }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_loop() {
        let bytes: [AtomicU8; 64] =
            core::array::from_fn(|i| AtomicU8::new([0, 1, 2, 0, 255][i * 7 % 5]));
        for count in 0..=64 {
            // SAFETY: 64 bytes of an array.
            let (fast, slow) = unsafe { (zeros(bytes.as_ptr(), count), 0u64) };
            // SAFETY: as above.
            let slow = slow | unsafe { bytewise(bytes.as_ptr(), count) };
            assert_eq!(fast, slow, "{count}");
        }
    }
}
