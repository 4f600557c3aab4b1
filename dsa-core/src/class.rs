//! Size classes.
//!
//! The classes are PostgreSQL's (dsa.c), four to a doubling from 64 bytes on, so that at most a
//! fifth of an object is lost. Five of them are rounded down to a multiple of 16 (1552 for
//! 1560, 1808 for 1816, 2608 for 2616, 3632 for 3640, 6544 for 6552): as many objects fit into
//! 64 KiB, and an object of a multiple of 16 bytes is always aligned to 16, which SIMD types and
//! `u128` need.
//!
//! An object of a class is aligned to the largest power of two that divides the class's size
//! ([`natural_align`]): slabs start their objects on a multiple of it. A request for more
//! alignment than its class has goes to the next class that has it. What exceeds
//! [`MAX_SIZE`] is a run of pages.

/// Bytes of an object of each class.
pub(crate) const SIZES: [u16; 36] = [
    8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640,
    768, 896, 1024, 1280, 1552, 1808, 2048, 2608, 3120, 3632, 4096, 5456, 6544, 7280, 8192,
];

/// How many classes there are.
pub(crate) const CLASSES: usize = SIZES.len();

/// The largest object that is not a run of pages, in bytes.
pub(crate) const MAX_SIZE: usize = 8192;

/// Class by `(size + 7) / 8`.
static CLASS_OF: [u8; MAX_SIZE / 8 + 1] = {
    let mut table = [0; MAX_SIZE / 8 + 1];
    let mut class = 0;
    let mut eighths = 0;
    while eighths <= MAX_SIZE / 8 {
        if eighths * 8 > SIZES[class] as usize {
            class += 1;
        }
        table[eighths] = class as u8;
        eighths += 1;
    }
    table
};

/// The class of a request of at most [`MAX_SIZE`] bytes that asks for no alignment above 8 (16
/// when its size is a multiple of 16).
#[inline(always)]
pub(crate) fn class_of(size: usize) -> Option<usize> {
    if size > MAX_SIZE {
        return None;
    }
    Some(CLASS_OF[(size + 7) >> 3] as usize)
}

/// The class of a request with an alignment; `None` if it has to be a run of pages.
pub(crate) fn class_for(size: usize, align: usize) -> Option<usize> {
    let first = class_of(size)?;
    (first..CLASSES).find(|&class| natural_align(class) >= align)
}

/// What every object of a class is aligned to: a power of two, at most 4096 unless the size is
/// larger.
pub(crate) const fn natural_align(class: usize) -> usize {
    1 << SIZES[class].trailing_zeros()
}

/// `ceil(2^32 / size)`: with `x = distance * reciprocal`, the upper half of `x` is the index of an
/// object `distance` bytes into a slab, and the lower half is below the reciprocal exactly when
/// the distance is a multiple of the size (distances below 65,536; checked by a test).
pub(crate) const fn reciprocal(class: usize) -> u32 {
    let size = SIZES[class] as u64;
    (1u64 << 32).div_ceil(size) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        for size in 0..=MAX_SIZE {
            let class = class_of(size).unwrap();
            assert!(SIZES[class] as usize >= size);
            assert!(class == 0 || (SIZES[class - 1] as usize) < size.max(1));
            if size % 16 == 0 && size != 0 {
                assert!(natural_align(class) >= 16, "size {size}");
            }
        }
        assert_eq!(class_of(MAX_SIZE + 1), None);
        assert_eq!(class_of(usize::MAX), None);
    }

    #[test]
    fn alignments_are_found() {
        for align in [8usize, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096] {
            for size in 1..=4096 {
                let class = class_for(size, align).unwrap();
                assert!(SIZES[class] as usize >= size && natural_align(class) >= align);
            }
        }
    }

    #[test]
    fn the_reciprocal_divides_exactly() {
        for (class, size) in SIZES.iter().enumerate() {
            let (size, recip) = (u64::from(*size), u64::from(reciprocal(class)));
            for distance in 0..65536u64 {
                let x = distance * recip;
                assert_eq!(x >> 32, distance / size);
                assert_eq!((x as u32 as u64) < recip, distance % size == 0);
            }
        }
    }
}
