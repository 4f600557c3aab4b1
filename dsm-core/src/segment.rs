//! A segment attached by this process.

use core::ops::Range;
use core::ptr::NonNull;

use crate::handle::{LockAddress, SegmentHandle};
use crate::namespace::{Error, Namespace};

/// A handle to a mapped segment: detaches when dropped (the mapping goes with the last handle of
/// the process, the segment with the last process). `Send + Sync`.
pub struct Segment<'n> {
    namespace: &'n Namespace<'n>,
}

#[expect(unused_variables, reason = "bodies follow")]
impl<'n> Segment<'n> {
    /// The handle, to be given to other processes.
    pub fn handle(&self) -> SegmentHandle {
        todo!()
    }
    /// First byte.
    pub fn base(&self) -> NonNull<u8> {
        todo!()
    }
    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> usize {
        todo!()
    }
    /// The address of a lock at `offset`, for `LockRef::new`.
    pub fn lock_address(&self, offset: u64) -> LockAddress {
        todo!()
    }
    /// Backs a range with memory.
    pub fn reserve(&self, range: Range<usize>) -> Result<(), Error> {
        todo!()
    }
    /// Keeps this process's mapping until the process leaves the namespace.
    #[doc(alias = "dsm_pin_mapping")]
    pub fn pin_mapping(&self) {
        todo!()
    }
    /// Gives up the handle without detaching: plain data for tables of mappings.
    pub fn into_raw(self) -> RawSegment {
        todo!()
    }
    /// Takes back what `into_raw` gave.
    ///
    /// # Safety
    /// Once for each `into_raw`, with the same namespace.
    pub unsafe fn from_raw(namespace: &'n Namespace<'n>, raw: RawSegment) -> Self {
        todo!()
    }
    /// Detaches but leaves zeros mapped in place (reads by late optimistic readers find zeros).
    /// The address range returns with `release_blank`.
    ///
    /// # Safety
    /// Only reads may still touch the range.
    pub unsafe fn detach_to_blank(self) -> Blank {
        todo!()
    }
    /// The namespace.
    pub fn namespace(&self) -> &'n Namespace<'n> {
        self.namespace
    }
}

/// A segment handle as plain data.
#[derive(Clone, Copy, Debug)]
pub struct RawSegment {
    /// Which segment.
    pub handle: SegmentHandle,
    /// First byte of the mapping.
    pub base: NonNull<u8>,
    /// Length in bytes.
    pub len: usize,
}

/// An address range of zeros left by a detached segment.
#[derive(Debug)]
pub struct Blank {
    /// First byte.
    pub base: NonNull<u8>,
    /// Length in bytes.
    pub len: usize,
}
