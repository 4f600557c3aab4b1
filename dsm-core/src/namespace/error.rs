//! Why a namespace could not be opened, or an operation on it failed.

use core::fmt;

use crate::error::{ErrorKind, OutOfRange, ProviderFailure};
use crate::handle::SegmentHandle;
use crate::lock::LockError;

/// Most bytes of a segment: what an offset of a lock address can say, or, where addresses are
/// shorter, what a single object may have.
pub(super) const MOST_BYTES: usize =
    if usize::BITS > 43 { usize::MAX >> (usize::BITS - 43) } else { isize::MAX as usize };

/// Why a namespace could not be opened or an operation on it failed. Nothing was changed, and no
/// object is left behind, unless the variant says otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The platform refused.
    Provider(ProviderFailure),
    /// The control object is not one of ours (magic).
    Foreign,
    /// It is of another layout version: (its, ours).
    Version(u32, u32),
    /// Same version, other pointer width, endianness or slot sizes: (its, ours).
    Fingerprint(u64, u64),
    /// It is shorter than its header says: (bytes there, bytes needed).
    Truncated(u64, u64),
    /// A field is out of its range; names the field.
    Corrupt(&'static str),
    /// It is a copy: its recorded identity is not the object's.
    Copied,
    /// A number of the configuration is out of its range.
    InvalidConfig(OutOfRange),
    /// All process slots are taken; raise `max_processes`.
    TooManyProcesses(u32),
    /// All participant slots are taken; raise `max_participants`.
    TooManyParticipants(u32),
    /// All segment slots are taken; raise `max_segments`.
    TooManySegments(u32),
    /// The local table is too short for the namespace: (has, needs).
    LocalTooSmall(u32, u32),
    /// Processes live in a namespace that was to be removed; says how many.
    InUse(u32),
    /// The process-local memory belongs to another open namespace, or was left so by a fork.
    LocalInUse,
    /// The participant is registered already.
    AlreadyRegistered,
    /// The thread's process-local half is another namespace's.
    ForeignLocal,
    /// There is no such segment (any more).
    NoSuchSegment(SegmentHandle),
    /// The segment is pinned already, or not pinned.
    Pinned(bool),
    /// A segment cannot be pinned under one that itself depends on it.
    CircularPin,
    /// A size of zero or beyond what can be mapped, or a range beyond the segment's end.
    InvalidSize(u64),
    /// A lock of the control segment.
    Lock(LockError),
    /// The process has forked since it opened the namespace; open it anew in the child.
    Forked,
    /// The entropy source gave nothing usable.
    Entropy,
}

impl Error {
    /// Whether something is used up: shared memory, slots of the namespace, or what the system
    /// allows a process to have open.
    ///
    /// ```
    /// use dsm_core::error::{ErrorKind, ProviderFailure};
    /// use dsm_core::namespace::Error;
    ///
    /// assert!(Error::TooManySegments(1024).is_full());
    /// assert!(Error::from(ProviderFailure::new(ErrorKind::NoSpace, "ftruncate")).is_full());
    /// assert!(!Error::Forked.is_full());
    /// ```
    #[must_use]
    pub const fn is_full(&self) -> bool {
        match self {
            Self::Provider(failure) => failure.kind.is_full(),
            Self::TooManyProcesses(_) | Self::TooManyParticipants(_) | Self::TooManySegments(_) => {
                true
            }
            _ => false,
        }
    }

    /// Whether the time ran out that the caller was ready to wait; see [`LockError::is_timeout`].
    ///
    /// ```
    /// use dsm_core::{lock::LockError, namespace::Error};
    ///
    /// assert!(Error::Lock(LockError::TimedOut).is_timeout());
    /// ```
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        match self {
            Self::Provider(failure) => matches!(failure.kind, ErrorKind::TimedOut),
            Self::Lock(error) => error.is_timeout(),
            _ => false,
        }
    }

    /// Whether the caller would have waited for itself; see [`LockError::is_would_deadlock`].
    ///
    /// ```
    /// use dsm_core::{lock::LockError, namespace::Error};
    ///
    /// assert!(Error::Lock(LockError::WouldDeadlock).is_would_deadlock());
    /// ```
    #[must_use]
    pub const fn is_would_deadlock(&self) -> bool {
        matches!(self, Self::Lock(error) if error.is_would_deadlock())
    }
}

impl From<ProviderFailure> for Error {
    fn from(failure: ProviderFailure) -> Self {
        Self::Provider(failure)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(failure) => failure.fmt(f),
            Self::Foreign => f.write_str(
                "the control object was not made by this library; choose another name or remove it",
            ),
            Self::Version(theirs, ours) if theirs < ours => write!(
                f,
                "the namespace was made by an older build (layout {theirs}, this one has {ours}); \
                 let its processes end, then remove it"
            ),
            Self::Version(theirs, ours) => write!(
                f,
                "the namespace was made by a newer build (layout {theirs}, this one has {ours}); \
                 upgrade this program"
            ),
            Self::Fingerprint(theirs, ours) if other_width(*theirs, *ours) => write!(
                f,
                "the namespace was made by programs with {}-bit addresses, this one has {}-bit \
                 ones; build them alike, or choose another name",
                8 * (theirs & 0xff),
                8 * (ours & 0xff)
            ),
            Self::Fingerprint(theirs, ours) => write!(
                f,
                "the namespace was made by a build for another machine or with other slot sizes \
                 (fingerprint {theirs:016x}, this one has {ours:016x})"
            ),
            Self::Truncated(has, needs) => write!(
                f,
                "the control object has {has} bytes but needs {needs}: it was cut off; remove it"
            ),
            Self::Corrupt(field) => {
                write!(f, "the control segment is damaged: {field} is out of range; remove it")
            }
            Self::Copied => {
                f.write_str("the control object is a copy of another namespace's; remove the copy")
            }
            Self::InvalidConfig(range) => range.fmt(f),
            Self::TooManyProcesses(most) => write!(
                f,
                "all {most} process slots are taken; create the namespace with a higher \
                 `max_processes`"
            ),
            Self::TooManyParticipants(most) => write!(
                f,
                "all {most} participant slots are taken; create the namespace with a higher \
                 `max_participants`"
            ),
            Self::TooManySegments(most) => write!(
                f,
                "all {most} segment slots are taken; create the namespace with a higher \
                 `max_segments`"
            ),
            Self::LocalTooSmall(has, needs) => write!(
                f,
                "the process-local table has room for {has} segments, the namespace has {needs}"
            ),
            Self::InUse(processes) => {
                write!(f, "{processes} process(es) live in the namespace; end them first")
            }
            Self::LocalInUse => {
                f.write_str("the process-local memory belongs to another open namespace")
            }
            Self::AlreadyRegistered => f.write_str("this thread is registered already"),
            Self::ForeignLocal => f.write_str(
                "the thread's process-local half was used with another namespace; give it a new one",
            ),
            Self::NoSuchSegment(handle) => write!(f, "there is no segment {handle}"),
            Self::Pinned(true) => f.write_str("the segment is pinned already"),
            Self::Pinned(false) => f.write_str("the segment is not pinned"),
            Self::CircularPin => {
                f.write_str("the segment to be pinned under depends on the segment itself")
            }
            Self::InvalidSize(0) => f.write_str("a segment of 0 bytes is not possible"),
            Self::InvalidSize(size) if *size > MOST_BYTES as u64 => write!(
                f,
                "a segment of {size} bytes is longer than any can be: {MOST_BYTES} bytes, with {}-bit \
                 addresses",
                usize::BITS
            ),
            Self::InvalidSize(size) => write!(f, "a size or range of {size} bytes is invalid"),
            Self::Lock(error) => error.fmt(f),
            Self::Forked => f.write_str(
                "the process has forked since it opened the namespace; open it anew in the child",
            ),
            Self::Entropy => f.write_str("the source of random numbers gives nothing usable"),
        }
    }
}

/// Whether two fingerprints differ in the width of an address, which is their lowest byte.
fn other_width(theirs: u64, ours: u64) -> bool {
    let width = theirs & 0xff;
    matches!(width, 4 | 8) && width != ours & 0xff
}

crate::debug_is_display!(Error);
impl core::error::Error for Error {}
