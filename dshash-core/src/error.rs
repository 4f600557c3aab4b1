//! What can go wrong.

use core::fmt;

use dsm_core::lock::{KindName, LockError};

/// Why memory could not be had.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// The area refused.
    Area(dsa_core::Error),
    /// The memory lies beyond the first 64 MiB of its segment: create the area with segments of
    /// at most [`MAX_SEGMENT_SIZE`](crate::MAX_SEGMENT_SIZE).
    SegmentTooLarge,
}

/// Which stored parameter does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Parameter {
    /// Bytes of a key.
    KeySize,
    /// Bytes of an entry: key, padding, value.
    EntrySize,
    /// Alignment of an entry in bytes.
    Alignment,
    /// Which hash function.
    HashIdentity,
    /// What the creator says its types are.
    TypeTag,
    /// Layout version of the table.
    LayoutVersion,
    /// Which kind of lock: [`RawLock::IDENTITY`](dsm_core::lock::RawLock::IDENTITY).
    LockKind,
}

/// Why an operation did nothing. A failed operation changes nothing and holds no lock.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// This thread holds a guard of the same table: drop it before calling again. Only shared
    /// operations beside shared guards are possible.
    WouldDeadlock,
    /// The partition's lock could not be had.
    Lock(LockError),
    /// No memory for it, or a segment of the table could not be mapped: see what the area says.
    Memory(MemoryError),
    /// The entry's value was being changed when the one who changed it died: repair it, or
    /// delete the entry.
    Poisoned,
    /// The table was created with other parameters than this process has: which, the table's,
    /// this process's.
    Mismatch(Parameter, u64, u64),
    /// A parameter is out of its range: which, its value, the most (or the only value) allowed.
    Parameter(Parameter, u64, u64),
    /// The number of partitions is not a power of two up to 1024.
    Partitions(u32),
    /// A key of this many bytes where only that many fit.
    KeyTooLong(usize, usize),
    /// The heap is of another area than the table.
    ForeignHeap,
    /// There is no table at that pointer.
    NotATable,
    /// The table was destroyed.
    Destroyed,
    /// Shared memory contradicts itself; says where.
    Corrupt(&'static str),
}

impl Error {
    /// What the area says that the table lives in, if it is the area that refused.
    const fn area(&self) -> Option<&dsa_core::Error> {
        match self {
            Self::Memory(MemoryError::Area(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether there is no room: the table's area [has none](dsa_core::Error::is_full).
    ///
    /// ```
    /// use dshash_core::{Error, MemoryError};
    ///
    /// let (needed, total, limit) = (65_536, 65_536, 100_000);
    /// let limit = dsa_core::Error::SizeLimit { needed, total, limit, largest: 0 };
    /// assert!(Error::Memory(MemoryError::Area(limit)).is_full());
    /// assert!(!Error::Poisoned.is_full());
    /// ```
    #[must_use]
    pub const fn is_full(&self) -> bool {
        match self.area() {
            Some(error) => error.is_full(),
            None => false,
        }
    }

    /// Whether the entry's value was being changed when the one who changed it died.
    ///
    /// ```
    /// assert!(dshash_core::Error::Poisoned.is_poisoned());
    /// ```
    #[must_use]
    pub const fn is_poisoned(&self) -> bool {
        matches!(self, Self::Poisoned)
    }

    /// Whether the time ran out that the caller was ready to wait; see [`LockError::is_timeout`].
    ///
    /// ```
    /// use dshash_core::Error;
    /// use dsm_core::lock::LockError;
    ///
    /// assert!(Error::Lock(LockError::WouldBlock).is_timeout());
    /// ```
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        match (self, self.area()) {
            (Self::Lock(error), _) => error.is_timeout(),
            (_, Some(error)) => error.is_timeout(),
            _ => false,
        }
    }

    /// Whether this thread would have waited for itself: it holds a guard of the same table, to be
    /// dropped first.
    ///
    /// ```
    /// assert!(dshash_core::Error::WouldDeadlock.is_would_deadlock());
    /// ```
    #[must_use]
    pub const fn is_would_deadlock(&self) -> bool {
        match (self, self.area()) {
            (Self::WouldDeadlock, _) => true,
            (Self::Lock(error), _) => error.is_would_deadlock(),
            (_, Some(error)) => error.is_would_deadlock(),
            _ => false,
        }
    }
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        match error {
            LockError::WouldDeadlock => Self::WouldDeadlock,
            other => Self::Lock(other),
        }
    }
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl From<dsa_core::Error> for MemoryError {
    fn from(error: dsa_core::Error) -> Self {
        Self::Area(error)
    }
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Area(error) => error.fmt(f),
            Self::SegmentTooLarge => write!(
                f,
                "the area's segments are longer than a table can refer to; create the area with \
                 segments of at most 64 MiB"
            ),
        }
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeySize => "key size in bytes",
            Self::EntrySize => "entry size in bytes",
            Self::Alignment => "alignment in bytes",
            Self::HashIdentity => "hash function",
            Self::TypeTag => "type tag",
            Self::LayoutVersion => "layout version",
            Self::LockKind => "locks",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldDeadlock => f.write_str(
                "this thread holds a guard of the same table; drop it before calling again",
            ),
            Self::Lock(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
            Self::Poisoned => f.write_str(
                "the value was being changed by a participant that died; repair it or delete it",
            ),
            Self::Mismatch(what, theirs, ours) => {
                let number = |f: &mut fmt::Formatter<'_>, n: u64| match what {
                    Parameter::HashIdentity | Parameter::TypeTag => write!(f, "{n:016x}"),
                    Parameter::LockKind => KindName(n).fmt(f),
                    _ => write!(f, "{n}"),
                };
                write!(f, "the table was created with {what} ")?;
                number(f, *theirs)?;
                f.write_str(", this process asks for ")?;
                number(f, *ours)
            }
            Self::Parameter(what, got, allowed) => {
                write!(f, "{what} {got} is not possible; allowed: {allowed}")
            }
            Self::Partitions(n) => {
                write!(f, "{n} partitions: must be a power of two from 1 to 1024")
            }
            Self::KeyTooLong(got, most) => {
                write!(f, "a key of {got} bytes in a table whose keys have at most {most}")
            }
            Self::ForeignHeap => f.write_str(
                "the heap belongs to another area than the table; use one of the table's area",
            ),
            Self::NotATable => f.write_str("there is no hash table at this pointer"),
            Self::Destroyed => f.write_str("the hash table was destroyed"),
            Self::Corrupt(what) => write!(f, "the hash table is damaged: {what}"),
        }
    }
}

dsm_core::debug_is_display!(MemoryError, Error);

impl core::error::Error for MemoryError {}
impl core::error::Error for Error {}
