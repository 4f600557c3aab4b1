//! Pointers into an area.
//!
//! A [`DsaPointer`] is 64 bits that mean the same in every process:
//!
//! ```text
//!  63        50 49       40 39                                      0
//! +------------+-----------+-----------------------------------------+
//! | generation |  segment  |                 offset                  |
//! |  14 bits   |  10 bits  |                 40 bits                 |
//! +------------+-----------+-----------------------------------------+
//! ```
//!
//! The upper 24 bits are the *key* of a segment at one time of its directory entry: an entry that
//! is used again has another generation, so a process finds out by one compare with its own table
//! that what it has mapped is not what the pointer means. Generations start at 1, which makes 0 the
//! pointer that is never valid. After the last generation an entry starts over, once no process has
//! a segment of those before it attached (see `area::directory`): what a *stale* pointer means, one
//! to memory that was freed, is then refused no more, but may be an object of the new segment. That
//! is so of freed memory in a segment that lives on, too; who keeps such pointers has no promise.
//!
//! All types here are plain data: any 64 bits are a value. Nothing is promised by owning one.

use core::cmp::Ordering as Order;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;

use dsm_core::sync::{AtomicU64, Ordering};

/// A position in an area: generation, segment, offset; 0 is the invalid pointer.
#[doc(alias = "dsa_pointer")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(
    feature = "zerocopy",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(transparent)]
pub struct DsaPointer(u64);

impl DsaPointer {
    /// The pointer that is never valid.
    #[doc(alias = "InvalidDsaPointer")]
    pub const INVALID: Self = Self(0);
    /// Bits of the offset.
    pub const OFFSET_BITS: u32 = 40;
    /// Bits of the segment index.
    pub const SEGMENT_BITS: u32 = 10;
    /// Segments an area can have.
    pub const MAX_SEGMENTS: usize = 1 << Self::SEGMENT_BITS;
    /// The last generation of a directory entry, after which they start over.
    pub const MAX_GENERATION: u32 = (1 << 14) - 1;

    const OFFSET_MASK: u64 = (1 << Self::OFFSET_BITS) - 1;
    /// The largest offset.
    pub(crate) const MAX_OFFSET: u64 = Self::OFFSET_MASK;

    /// The pointer with these bits.
    #[inline]
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The bits.
    #[inline]
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Composes a pointer from the key of a segment and an offset below 2^40.
    #[inline]
    #[must_use]
    pub(crate) const fn compose(key: u32, offset: u64) -> Self {
        Self((key as u64) << Self::OFFSET_BITS | offset & Self::OFFSET_MASK)
    }

    /// The key of the segment with this index and generation.
    #[inline]
    #[must_use]
    pub(crate) const fn key_of(index: u32, generation: u32) -> u32 {
        generation << Self::SEGMENT_BITS | index
    }

    /// Generation and segment index in one word; 0 for the invalid pointer.
    #[inline]
    #[must_use]
    pub const fn key(self) -> u32 {
        (self.0 >> Self::OFFSET_BITS) as u32
    }

    /// Index of the segment in the area's directory.
    #[inline]
    #[must_use]
    pub const fn segment(self) -> usize {
        self.key() as usize & (Self::MAX_SEGMENTS - 1)
    }

    /// Generation of the directory entry.
    #[inline]
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.key() >> Self::SEGMENT_BITS
    }

    /// Bytes from the start of the segment.
    #[inline]
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 & Self::OFFSET_MASK
    }

    /// The pointer to the first byte of the segment, at the same time of its directory entry.
    #[inline]
    #[must_use]
    pub(crate) const fn first(self) -> Self {
        Self(self.0 & !Self::OFFSET_MASK)
    }

    /// Whether this can be a position at all; says nothing about what is there.
    #[doc(alias = "DsaPointerIsValid")]
    #[inline]
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// The pointer that many bytes on, in the same segment; invalid when that leaves the range
    /// of offsets, or from the invalid pointer.
    #[inline]
    #[must_use]
    pub const fn add(self, bytes: u64) -> Self {
        match self.offset().checked_add(bytes) {
            Some(sum) if sum <= Self::OFFSET_MASK && self.is_valid() => {
                Self::compose(self.key(), sum)
            }
            _ => Self::INVALID,
        }
    }

    /// The same position, of a `T`.
    #[inline]
    #[must_use]
    pub const fn cast<T>(self) -> DsaPtr<T> {
        DsaPtr { pointer: self, _of: PhantomData }
    }
}

// Every byte of the longest segment has an offset.
const _: () = assert!(crate::layout::MAX_SEGMENT <= 1 << DsaPointer::OFFSET_BITS);

impl fmt::Debug for DsaPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_valid() {
            write!(f, "DsaPointer({}.{}:{:#x})", self.segment(), self.generation(), self.offset())
        } else {
            f.write_str("DsaPointer(invalid)")
        }
    }
}

impl fmt::Display for DsaPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A [`DsaPointer`] that remembers what it points to. Plain data, like the pointer itself: whoever
/// holds one has no proof that a `T` is there, so following it is `unsafe` or a checked copy.
#[cfg_attr(
    feature = "zerocopy",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(transparent)]
pub struct DsaPtr<T> {
    pointer: DsaPointer,
    _of: PhantomData<fn() -> T>,
}

impl<T> DsaPtr<T> {
    /// The pointer that is never valid.
    pub const INVALID: Self = DsaPointer::INVALID.cast();

    /// The untyped pointer.
    #[inline]
    #[must_use]
    pub const fn pointer(self) -> DsaPointer {
        self.pointer
    }

    /// The bits.
    #[inline]
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.pointer.raw()
    }

    /// Whether this can be a position at all.
    #[inline]
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.pointer.is_valid()
    }

    /// The same position, of a `U`.
    #[inline]
    #[must_use]
    pub const fn cast<U>(self) -> DsaPtr<U> {
        self.pointer.cast()
    }
}

impl<T> Clone for DsaPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for DsaPtr<T> {}
impl<T> Default for DsaPtr<T> {
    fn default() -> Self {
        Self::INVALID
    }
}
impl<T> PartialEq for DsaPtr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.pointer == other.pointer
    }
}
impl<T> Eq for DsaPtr<T> {}
impl<T> PartialOrd for DsaPtr<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for DsaPtr<T> {
    fn cmp(&self, other: &Self) -> Order {
        self.pointer.cmp(&other.pointer)
    }
}
impl<T> Hash for DsaPtr<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pointer.hash(state);
    }
}
impl<T> fmt::Debug for DsaPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pointer.fmt(f)
    }
}
impl<T> From<DsaPointer> for DsaPtr<T> {
    fn from(pointer: DsaPointer) -> Self {
        pointer.cast()
    }
}
impl<T> From<DsaPtr<T>> for DsaPointer {
    fn from(pointer: DsaPtr<T>) -> Self {
        pointer.pointer
    }
}

/// A [`DsaPointer`] that processes exchange: the head of a list, a link, a published root.
#[doc(alias = "dsa_pointer_atomic")]
#[cfg_attr(
    feature = "zerocopy",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
#[repr(transparent)]
pub struct AtomicDsaPointer(AtomicU64);

impl AtomicDsaPointer {
    /// A cell holding `pointer`.
    #[must_use]
    pub fn new(pointer: DsaPointer) -> Self {
        Self(AtomicU64::new(pointer.raw()))
    }

    /// Reads it.
    #[inline]
    #[must_use]
    pub fn load(&self, order: Ordering) -> DsaPointer {
        DsaPointer(self.0.load(order))
    }

    /// Writes it.
    #[inline]
    pub fn store(&self, pointer: DsaPointer, order: Ordering) {
        self.0.store(pointer.raw(), order);
    }

    /// Writes it and returns what it was.
    #[inline]
    pub fn swap(&self, pointer: DsaPointer, order: Ordering) -> DsaPointer {
        DsaPointer(self.0.swap(pointer.raw(), order))
    }

    /// Writes `new` if it is `current`.
    ///
    /// # Errors
    ///
    /// What it was instead.
    #[inline]
    pub fn compare_exchange(
        &self,
        current: DsaPointer,
        new: DsaPointer,
        success: Ordering,
        failure: Ordering,
    ) -> Result<DsaPointer, DsaPointer> {
        self.0
            .compare_exchange(current.raw(), new.raw(), success, failure)
            .map(DsaPointer)
            .map_err(DsaPointer)
    }

    /// The word itself.
    #[inline]
    #[must_use]
    pub fn as_atomic(&self) -> &AtomicU64 {
        &self.0
    }
}

impl Default for AtomicDsaPointer {
    fn default() -> Self {
        Self::new(DsaPointer::INVALID)
    }
}

impl fmt::Debug for AtomicDsaPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.load(Ordering::Relaxed).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let p = DsaPointer::compose(DsaPointer::key_of(1023, 16383), (1 << 40) - 1);
        assert_eq!((p.segment(), p.generation(), p.offset()), (1023, 16383, (1 << 40) - 1));
        assert!(p.is_valid() && p.raw() == u64::MAX);
        assert_eq!(p.add(1), DsaPointer::INVALID);
        assert_eq!(DsaPointer::INVALID.add(8), DsaPointer::INVALID);
        let q = DsaPointer::compose(DsaPointer::key_of(0, 1), 0);
        assert!(q.is_valid(), "offset 0 of segment 0 is a position");
        assert_eq!(q.add(4096).offset(), 4096);
    }
}
