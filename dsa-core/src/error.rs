//! What can go wrong.
//!
//! Three kinds: [`Error`] of an operation that was refused or ran out of something, with nothing
//! changed; [`FreeError`] of a pointer that cannot be freed; [`Corruption`] of bytes that no code
//! of ours writes.

use core::fmt;

use dsm_core::error::{ErrorKind, OutOfRange};
use dsm_core::lock::{KindName, LockError};
use dsm_core::namespace;

use crate::pointer::DsaPointer;

/// Shared memory that contradicts itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Corruption {
    /// What is wrong.
    pub what: &'static str,
    /// Where: an offset, a raw pointer or the value found, as `what` suggests.
    pub at: u64,
}

impl Corruption {
    pub(crate) const fn new(what: &'static str, at: u64) -> Self {
        Self { what, at }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the area is damaged: {} ({:#x})", self.what, self.at)
    }
}

dsm_core::debug_is_display!(Corruption, Error, FreeError);

impl core::error::Error for Corruption {}

/// Why an operation on an area was refused. Nothing is changed then, and no lock is held.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A request above what the flags allow (bytes).
    InvalidRequestSize(u64),
    /// An alignment that is no power of two, or above a page (bytes).
    InvalidAlignment(usize),
    /// The area's size limit stands in the way.
    SizeLimit {
        /// Bytes of the segment that would be needed.
        needed: u64,
        /// Bytes of all segments now.
        total: u64,
        /// The limit in bytes.
        limit: u64,
        /// Bytes of the largest request that would succeed instead, as far as it is made of pages;
        /// 0 if there is none: then all pages are used.
        largest: u64,
    },
    /// The area has so many segments that another one would leave too few slots of the namespace to
    /// others: less than a quarter of what it has itself.
    SegmentShare {
        /// Segments of the area.
        segments: u32,
        /// Slots of the namespace, taken or not.
        slots: u32,
    },
    /// All 1,024 segments of the area are in use, or were made and given back 16,383 times and
    /// can't start over, because some process has had one attached all that time.
    TooManySegments,
    /// A number of the options is out of its range.
    InvalidOptions(OutOfRange),
    /// The memory for an area in place is too small or not aligned to 4,096: (has, needs) bytes.
    PlaceTooSmall(u64, u64),
    /// The area is gone, or going: the last process has left it.
    CouldNotAttach,
    /// There is no area of ours at that place.
    NotAnArea,
    /// The area is of another layout version: (its, ours).
    Version(u32, u32),
    /// The area was made by another build: pointer width, byte order or lock size: (its, ours).
    Fingerprint(u64, u64),
    /// The area's locks are of another kind than the type it is attached with: (its, ours), each a
    /// [`RawLock::IDENTITY`](dsm_core::lock::RawLock::IDENTITY).
    LockKind(u64, u64),
    /// The participant is of another namespace than the area.
    ForeignParticipant,
    /// A pointer that means no allocated object of this area.
    InvalidPointer(DsaPointer),
    /// A copy that leaves its object: (bytes asked for, bytes there).
    OutOfObject(u64, u64),
    /// A word that is to name an object lies in no segment of the namespace that this process has
    /// attached: nobody could look there after a kill.
    ForeignDestination,
    /// An object was to be moved to a word that names another one: this.
    Occupied(DsaPointer),
    /// Another thread of this process is attaching a segment and takes very long: ten seconds.
    /// Nothing is wrong with the area; the same call may succeed later.
    Busy,
    /// The [`AreaLocal`](crate::AreaLocal) has an area already.
    LocalInUse,
    /// A lock of the area could not be taken.
    Lock(LockError),
    /// The namespace refused: out of memory, out of slots, or whatever the platform says.
    Namespace(namespace::Error),
    /// The area is damaged.
    Corrupt(Corruption),
}

impl Error {
    /// Whether something that is given back may help, or asking for less.
    pub(crate) const fn is_shortage(&self) -> bool {
        self.is_full() || self.is_of_memory()
    }

    /// Whether the system has no segment of that length: a shorter one may be had.
    pub(crate) const fn is_of_memory(&self) -> bool {
        match self {
            Self::Namespace(namespace::Error::InvalidSize(_)) => true,
            Self::Namespace(namespace::Error::Provider(failure)) => {
                failure.kind.is_full() || matches!(failure.kind, ErrorKind::InvalidSize)
            }
            _ => false,
        }
    }

    /// Whether there is no room: the area is at its limit, or the namespace has
    /// [none](namespace::Error::is_full).
    ///
    /// ```
    /// use dsa_core::Error;
    ///
    /// let error = Error::SizeLimit { needed: 65_536, total: 65_536, limit: 100_000, largest: 0 };
    /// assert!(error.is_full());
    /// assert!(!Error::CouldNotAttach.is_full());
    /// ```
    #[must_use]
    pub const fn is_full(&self) -> bool {
        match self {
            Self::SizeLimit { .. } | Self::TooManySegments | Self::SegmentShare { .. } => true,
            Self::Namespace(error) => error.is_full(),
            _ => false,
        }
    }

    /// Whether the time ran out that the caller was ready to wait, or the ten seconds of
    /// [`Busy`](Self::Busy): later the same call may succeed.
    ///
    /// ```
    /// assert!(dsa_core::Error::Busy.is_timeout());
    /// ```
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        match self {
            Self::Busy => true,
            Self::Lock(error) => error.is_timeout(),
            Self::Namespace(error) => error.is_timeout(),
            _ => false,
        }
    }

    /// Whether the caller would have waited for itself; see [`LockError::is_would_deadlock`].
    ///
    /// ```
    /// use dsa_core::Error;
    /// use dsm_core::lock::LockError;
    ///
    /// assert!(Error::Lock(LockError::WouldDeadlock).is_would_deadlock());
    /// ```
    #[must_use]
    pub const fn is_would_deadlock(&self) -> bool {
        match self {
            Self::Lock(error) => error.is_would_deadlock(),
            Self::Namespace(error) => error.is_would_deadlock(),
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidRequestSize(size) => write!(
                f,
                "invalid request size {size}: at most {} bytes, or pass Flags::HUGE",
                crate::heap::MAX_REQUEST
            ),
            Self::InvalidAlignment(align) => {
                write!(f, "invalid alignment {align}: a power of two up to 4096 is possible")
            }
            Self::SizeLimit { needed, total, limit, largest } => {
                write!(
                    f,
                    "the area needs a segment of {needed} bytes, has {total} and is limited to \
                     {limit}; free something or raise the limit; "
                )?;
                match largest {
                    0 => f.write_str("all its pages are used"),
                    largest => write!(f, "a request of {largest} bytes would succeed now"),
                }
            }
            Self::SegmentShare { segments, slots } => write!(
                f,
                "the area has {segments} segments, and the namespace few of its {slots} segment slots \
                 left, which are kept for others; create the area with larger segments (`initial`, \
                 `maximum`), or the namespace with a higher `max_segments`"
            ),
            Self::TooManySegments => f.write_str(
                "all 1024 segments of the area are in use or used up; create it with larger ones",
            ),
            Self::InvalidOptions(which) => which.fmt(f),
            Self::PlaceTooSmall(has, needs) => {
                write!(f, "an area in place needs {needs} bytes aligned to 4096; there are {has}")
            }
            Self::CouldNotAttach => f.write_str(
                "could not attach to the area: the last process has left it; create a new one",
            ),
            Self::NotAnArea => f.write_str("there is no area at that place"),
            Self::Version(its, ours) => write!(
                f,
                "the area has layout version {its}, this program {ours}; use one version of the \
                 program at a time"
            ),
            Self::Fingerprint(its, ours) => write!(
                f,
                "the area was made by a different build (layout {its:016x}, ours {ours:016x})"
            ),
            Self::LockKind(its, ours) => write!(
                f,
                "the area's locks are {}, this program's {}; attach it with the type of lock that \
                 it was created with",
                KindName(*its),
                KindName(*ours)
            ),
            Self::ForeignParticipant => f.write_str(
                "the participant belongs to another namespace than the area; use one of the area's",
            ),
            Self::InvalidPointer(pointer) => {
                write!(
                    f,
                    "{pointer} means no allocated object of this area: it was freed, or it is not \
                     what an allocation in this area returned"
                )
            }
            Self::OutOfObject(asked, there) => {
                write!(f, "{asked} bytes asked for where the object has {there}")
            }
            Self::ForeignDestination => f.write_str(
                "the word that is to name the object lies in no segment that this process has \
                 attached; use one in an area, a segment or a table of the namespace",
            ),
            Self::Occupied(pointer) => {
                write!(f, "the word that is to name the object names {pointer}; take that first")
            }
            Self::Busy => f.write_str(
                "another thread of this process is attaching a segment and takes over ten seconds; \
                 try again",
            ),
            Self::LocalInUse => {
                f.write_str("the `AreaLocal` has an area already; each area needs one of its own")
            }
            Self::Lock(e) => e.fmt(f),
            Self::Namespace(e) => e.fmt(f),
            Self::Corrupt(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

impl From<Corruption> for Error {
    fn from(e: Corruption) -> Self {
        Self::Corrupt(e)
    }
}

impl From<LockError> for Error {
    fn from(e: LockError) -> Self {
        Self::Lock(e)
    }
}

impl From<namespace::Error> for Error {
    fn from(e: namespace::Error) -> Self {
        Self::Namespace(e)
    }
}

/// Why a pointer was not freed. Nothing is changed then.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FreeError {
    /// It means no object: invalid, made up, or into the middle of one; or the object is free
    /// already, and so is its slab.
    InvalidPointer(DsaPointer),
    /// The object is free already.
    DoubleFree(DsaPointer),
    /// The lock that the operation needed could not be taken, or a segment not be attached.
    Refused(Error),
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidPointer(p) => write!(
                f,
                "{p} was never returned by this area; free what an allocation returned, in its area"
            ),
            Self::DoubleFree(p) => write!(f, "{p} is free already; free each object once"),
            Self::Refused(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for FreeError {}

impl<E: Into<Error>> From<E> for FreeError {
    fn from(e: E) -> Self {
        Self::Refused(e.into())
    }
}
