//! Errors: kinds shared by all providers, and the plain form the cores carry.
//!
//! **Texts.** The sentence of an error is whole: where another layer refused, what that says stands in
//! it, so that `source` has nothing to add and is `None`. `Debug` shows the same sentence (see
//! [`debug_is_display`](crate::debug_is_display)). So it is in all three cores; what an error consists of
//! is for programs to match on.

use core::fmt;

pub use crate::failure::{Explanation, ProviderFailure, Reason};

/// What went wrong, independent of the platform.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No object of that name.
    NotFound,
    /// A control object without a size: it is being made, or whoever made it died.
    Unfinished,
    /// The name, or the slot, is taken.
    AlreadyExists,
    /// The object is not the one that was meant, or not one of ours.
    Foreign,
    /// Shared memory is full.
    NoSpace,
    /// The process cannot map any more.
    NoMemory,
    /// Owner, mode or the system's policy forbids it.
    PermissionDenied,
    /// A size of zero, too large a size, or one that does not fit the object.
    InvalidSize,
    /// A name that the platform cannot express.
    InvalidName,
    /// Too many open files, segments or mappings.
    TooMany,
    /// The time allowed ran out.
    TimedOut,
    /// The platform cannot do this.
    Unsupported,
    /// Anything else; see the system's error code.
    #[default]
    Other,
}

impl ErrorKind {
    /// Whether something is used up: shared memory, addresses, or what the system allows a process
    /// to have open.
    ///
    /// ```
    /// use dsm_core::error::ErrorKind;
    ///
    /// assert!(ErrorKind::NoSpace.is_full() && ErrorKind::TooMany.is_full());
    /// assert!(!ErrorKind::PermissionDenied.is_full());
    /// ```
    #[must_use]
    pub const fn is_full(self) -> bool {
        matches!(self, Self::NoSpace | Self::NoMemory | Self::TooMany)
    }
}

/// A number that an option can't have: which, what it was given, and what it can have. `{:#}`
/// leaves out which.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange {
    /// The option, as its field or its setter is called.
    pub option: &'static str,
    /// What it was given.
    pub value: u64,
    /// The least it can be.
    pub least: u64,
    /// The most it can be.
    pub most: u64,
    /// What it must be a multiple of; 1 for any number.
    pub multiple: u64,
}

impl OutOfRange {
    /// Checks a number against its range.
    ///
    /// # Errors
    ///
    /// This, if it is outside.
    pub fn check(option: &'static str, value: u64, least: u64, most: u64) -> Result<(), Self> {
        Self::check_multiple(option, value, least, most, 1)
    }

    /// As [`check`](Self::check), of a number that must be a multiple of `multiple`, which is not 0.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn check_multiple(
        option: &'static str,
        value: u64,
        least: u64,
        most: u64,
        multiple: u64,
    ) -> Result<(), Self> {
        if (least..=most).contains(&value) && value % multiple == 0 {
            return Ok(());
        }
        Err(Self { option, value, least, most, multiple })
    }
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, value, least, most, multiple } = self;
        if !f.alternate() {
            write!(f, "`{option}` ")?;
        }
        write!(f, "can't be {value}: ")?;
        if *most == u64::MAX {
            write!(f, "it must be at least {least}")?;
        } else {
            write!(f, "it must be from {least} to {most}")?;
        }
        if *multiple > 1 {
            write!(f, ", and a multiple of {multiple}")?;
        }
        Ok(())
    }
}

crate::debug_is_display!(OutOfRange);
impl core::error::Error for OutOfRange {}
