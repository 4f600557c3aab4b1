//! How a pointer of the table is followed: by what is mapped alone, or wherever it leads.

use core::ptr::NonNull;

use dsa_core::DsaPointer;

use crate::error::{Error, MemoryError};
use crate::store::{Store, Unresolved};

/// A pointer led nowhere: for a reader with the lock a damaged table, for one without a hint that
/// it was overtaken. Says what it should have led to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Astray {
    Directory,
    DirectoryWord,
    Bucket,
    OverflowBucket,
    EndOfOverflow,
    Entry,
    Chunk,
}

impl From<Astray> for Error {
    #[cold]
    fn from(astray: Astray) -> Self {
        Self::Corrupt(match astray {
            Astray::Directory => "a directory",
            Astray::DirectoryWord => "a directory word",
            Astray::Bucket => "a bucket",
            Astray::OverflowBucket => "an overflow bucket",
            Astray::EndOfOverflow => "the end of the overflow",
            Astray::Entry => "a reference",
            Astray::Chunk => "a chunk",
        })
    }
}

/// How a lookup follows pointers, and what it says of one that it can't follow: an error, or just
/// that it is to be done again the long way.
pub(crate) trait Follow {
    type Failure;

    /// The address of some bytes.
    fn resolve<S: Store>(
        store: &S,
        pointer: u64,
        len: usize,
        to: Astray,
    ) -> Result<NonNull<u8>, Self::Failure>;

    /// What the pointer led to is not what it should have led to.
    fn astray(to: Astray) -> Self::Failure;
}

/// By what is mapped, without a call of the platform.
pub(crate) struct AtHand;

/// It is not at hand, or not there, or was overtaken: no reason is known, and it takes no space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotAtHand;

impl Follow for AtHand {
    type Failure = NotAtHand;

    #[inline(always)]
    fn resolve<S: Store>(
        store: &S,
        pointer: u64,
        len: usize,
        _: Astray,
    ) -> Result<NonNull<u8>, NotAtHand> {
        store.resolve_at_hand(DsaPointer::from_raw(pointer), len).ok_or(NotAtHand)
    }

    #[inline(always)]
    fn astray(_: Astray) -> NotAtHand {
        NotAtHand
    }
}

/// Wherever they lead: segments are mapped as needed. The partition is locked, so that a pointer
/// that leads nowhere is damage; a segment that can't be mapped is none.
pub(crate) struct Anywhere;

impl Follow for Anywhere {
    type Failure = Error;

    #[inline(always)]
    fn resolve<S: Store>(
        store: &S,
        pointer: u64,
        len: usize,
        to: Astray,
    ) -> Result<NonNull<u8>, Error> {
        store
            .resolve(DsaPointer::from_raw(pointer), len)
            .map_err(|unresolved| unresolved.instead_of(to.into()))
    }

    #[cold]
    fn astray(to: Astray) -> Error {
        to.into()
    }
}

impl Unresolved {
    /// The error for a pointer that is `wrong` if it leads nowhere.
    #[cold]
    pub(crate) fn instead_of(self, wrong: Error) -> Error {
        match self {
            Self::Nowhere => wrong,
            Self::Unmapped(error) => MemoryError::Area(error).into(),
        }
    }
}
