//! [`Error`]: what failed, on which object, why, and what to do about it.

use core::fmt;
use std::io;

use dsm_core::error::{ErrorKind, ProviderFailure, Reason};
use dsm_core::provider::ProviderError;

/// An error of a platform's provider.
///
/// Its text says what failed and what to do next; [`kind`](ProviderError::kind) is for programs,
/// [`failure`](ProviderError::failure) reduces it to plain data.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    failure: ProviderFailure,
    /// The object or directory concerned; empty if the explanation says it.
    subject: String,
    /// Where it lies, if memory ran out there; empty elsewhere.
    place: String,
    /// An explanation that no [`Reason`] gives; empty if the failure says all.
    why: String,
}

/// An error code of a system.
pub trait SystemCode: Copy {
    /// The code, as [`io::Error::from_raw_os_error`] takes it.
    fn number(self) -> i32;

    /// What it means, after a step that failed with it: of which kind it is, and the reason if that
    /// is certain.
    fn meaning(self, step: &str) -> (ErrorKind, Reason);
}

impl Error {
    fn of(failure: ProviderFailure, subject: String) -> Self {
        let (place, why) = Default::default();
        Self(Box::new(Inner { failure, subject, place, why }))
    }

    /// An error that the provider found by itself, of `subject`, for this reason.
    pub fn refused(reason: Reason, step: &'static str, subject: impl Into<String>) -> Self {
        Self::of(ProviderFailure::because(reason, step), subject.into())
    }

    /// An error that the provider found by itself, and that no [`Reason`] explains.
    pub fn new(kind: ErrorKind, step: &'static str, why: impl Into<String>) -> Self {
        let mut error = Self::of(ProviderFailure::new(kind, step), String::new());
        error.0.why = why.into();
        error
    }

    /// An error of a system call on `subject`.
    pub fn os(code: impl SystemCode, step: &'static str, subject: impl Into<String>) -> Self {
        let (kind, reason) = code.meaning(step);
        let os_code = code.number();
        let failure = ProviderFailure { reason, os_code, ..ProviderFailure::new(kind, step) };
        Self::of(failure, subject.into())
    }

    /// The same with another kind, and without a reason, where the call's circumstances say more
    /// than its code.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        (self.0.failure.kind, self.0.failure.reason) = (kind, Reason::Unknown);
        self
    }

    /// The same for a reason, where the call's circumstances say more than its code.
    #[must_use]
    pub fn because(mut self, reason: Reason) -> Self {
        (self.0.failure.kind, self.0.failure.reason) = (reason.kind(), reason);
        self
    }

    /// The same with sizes, if it says that memory ran out: `asked` bytes were wanted in `place`,
    /// and `space` says what is full, and how many bytes it has free, of how many.
    #[must_use]
    pub fn with_space(
        mut self,
        asked: u64,
        place: &str,
        space: impl FnOnce() -> (Reason, u64, u64),
    ) -> Self {
        let Inner { failure, place: there, .. } = &mut *self.0;
        if failure.kind == ErrorKind::NoSpace {
            failure.requested = asked;
            let reason;
            (reason, failure.available, failure.total) = space();
            if failure.reason == Reason::Unknown {
                failure.reason = reason;
            }
            place.clone_into(there);
        }
        self
    }

    /// The same with sizes, if it says that the process can map no more: `asked` bytes were wanted,
    /// and `limit` says why it can't.
    #[must_use]
    pub fn with_addresses(mut self, asked: u64, limit: impl FnOnce() -> Reason) -> Self {
        let failure = &mut self.0.failure;
        if failure.kind == ErrorKind::NoMemory {
            (failure.requested, failure.reason) = (asked, limit());
        }
        self
    }

    /// The same with sizes, where a limit says no: `asked` bytes were wanted, `most` are possible,
    /// or 0 if that is not known.
    #[must_use]
    pub fn with_limit(mut self, asked: u64, most: u64) -> Self {
        let failure = &mut self.0.failure;
        (failure.requested, failure.available, failure.total) = (asked, most, most);
        self
    }

    /// The operating system's error code; 0 if the error did not come from it.
    #[must_use]
    pub fn os_code(&self) -> i32 {
        self.0.failure.os_code
    }
}

impl ProviderError for Error {
    fn kind(&self) -> ErrorKind {
        self.0.failure.kind
    }

    fn failure(&self) -> ProviderFailure {
        self.0.failure
    }
}

dsm_core::debug_is_display!(Error);
impl std::error::Error for Error {}

impl From<Error> for ProviderFailure {
    fn from(error: Error) -> Self {
        error.failure()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { failure, subject, place, why } = &*self.0;
        write!(f, "{} failed", failure.step)?;
        if !subject.is_empty() {
            write!(f, " for {subject}")?;
        }
        if why.is_empty() {
            write!(f, ": {}", failure.explain("", place))?;
        } else {
            write!(f, ": {why}")?;
        }
        if failure.os_code != 0 {
            write!(f, " ({})", io::Error::from_raw_os_error(failure.os_code))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A code that means what is written on it.
    #[derive(Clone, Copy)]
    struct Plain(i32, ErrorKind, Reason);

    impl SystemCode for Plain {
        fn number(self) -> i32 {
            self.0
        }

        fn meaning(self, _step: &str) -> (ErrorKind, Reason) {
            (self.1, self.2)
        }
    }

    const FULL: Plain = Plain(28, ErrorKind::NoSpace, Reason::Unknown);
    const DENIED: Plain = Plain(13, ErrorKind::PermissionDenied, Reason::Unknown);

    #[test]
    fn a_full_place_is_explained() {
        let text = |reason, asked, place| {
            let error = Error::os(FULL, "ftruncate", "x");
            error.with_space(asked, place, || (reason, 60 << 20, 64 << 20)).to_string()
        };
        let shm = text(Reason::TmpfsFull, 128 << 20, "/dev/shm");
        assert!(
            shm.starts_with(
                "ftruncate failed for x: this needs 128 MiB but /dev/shm has 60 MiB free of 64 MiB; \
                 in Docker pass --shm-size=256m"
            ),
            "{shm}"
        );
        let disk = text(Reason::DiskFull, 128 << 20, r"C:\Temp");
        assert!(disk.contains(r"but C:\Temp has 60 MiB free of 64 MiB; free some"), "{disk}");
    }

    #[test]
    fn sizes_are_asked_for_only_where_memory_ran_out() {
        let denied = Error::os(DENIED, "open", "/dev/shm/x");
        let same = denied.clone().with_space(1, "/dev/shm", || unreachable!());
        assert_eq!(same.with_addresses(1, || unreachable!()).to_string(), denied.to_string());
        let full = Error::os(FULL, "ftruncate", "/dev/shm/x");
        let failure = full.with_space(1, "/dev/shm", || (Reason::DiskFull, 2, 3)).failure();
        assert_eq!((failure.requested, failure.available, failure.total), (1, 2, 3));
        assert_eq!((failure.os_code, failure.step), (28, "ftruncate"));
        assert_eq!(failure.reason, Reason::DiskFull);
        // What the system has said is not guessed anew.
        let quota = Error::os(Plain(122, ErrorKind::NoSpace, Reason::Quota), "write", "x");
        let failure = quota.with_space(1, "/x", || (Reason::DiskFull, 2, 3)).failure();
        assert_eq!(failure.reason, Reason::Quota);
    }

    #[test]
    fn texts_name_the_step_the_object_and_the_cause() {
        let error = Error::os(DENIED, "open", "/x/dsm.demo.ctl");
        let system = io::Error::from_raw_os_error(13);
        assert_eq!(
            error.to_string(),
            format!("open failed for /x/dsm.demo.ctl: permission denied ({system})")
        );
        assert_eq!((error.kind(), error.os_code()), (ErrorKind::PermissionDenied, 13));
        let error = Error::refused(Reason::Replaced, "removal", "x");
        assert_eq!(
            error.to_string(),
            "removal failed for x: the name means another object by now, which is left alone"
        );
        assert_eq!((error.kind(), error.os_code()), (ErrorKind::Foreign, 0));
        let error = Error::new(ErrorKind::Unsupported, "listing", "it can't be listed");
        assert_eq!(error.to_string(), "listing failed: it can't be listed");
    }
}
