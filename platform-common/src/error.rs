//! [`Error`]: what failed, on which object, why, and what to do about it.

use core::fmt;
use std::io;

use dsm_core::error::{ErrorKind, ProviderFailure};
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
    /// The object or file system concerned; empty if the explanation says it.
    subject: String,
    /// An explanation beyond the kind; empty if the system's own text is all there is to say.
    why: String,
}

/// An error code of a system.
pub trait SystemCode: Copy {
    /// The code, as [`io::Error::from_raw_os_error`] takes it.
    fn number(self) -> i32;

    /// What it means, after a step that failed with it.
    fn kind(self, step: &str) -> ErrorKind;
}

impl Error {
    /// An error that the provider found by itself.
    pub fn new(kind: ErrorKind, step: &'static str, why: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            failure: ProviderFailure::new(kind, step),
            subject: String::new(),
            why: why.into(),
        }))
    }

    /// An error of a system call on `subject`.
    pub fn os(code: impl SystemCode, step: &'static str, subject: impl Into<String>) -> Self {
        let failure = ProviderFailure {
            os_code: code.number(),
            ..ProviderFailure::new(code.kind(step), step)
        };
        Self(Box::new(Inner { failure, subject: subject.into(), why: String::new() }))
    }

    /// Memory ran out: `asked` bytes were wanted in `place`, which has `free` of `total`.
    pub fn full(code: impl SystemCode, asked: u64, (free, total): (u64, u64), place: &str) -> Self {
        let error = Self::os(code, "reserving", "").with_kind(ErrorKind::NoSpace);
        error.with_space(asked, place, || (free, total))
    }

    /// The same with another kind, where the call's circumstances say more than its code.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.failure.kind = kind;
        self
    }

    /// The same with sizes, if it says that memory or addresses ran out: `asked` bytes were wanted in `place`,
    /// which has as many bytes free, of as many, as `space` says.
    #[must_use]
    pub fn with_space(
        mut self,
        asked: u64,
        place: &str,
        space: impl FnOnce() -> (u64, u64),
    ) -> Self {
        let Inner { failure, subject, .. } = &mut *self.0;
        if failure.kind == ErrorKind::NoSpace {
            failure.requested = asked;
            (failure.available, failure.total) = space();
            place.clone_into(subject);
        }
        self.with_asked(asked)
    }

    /// The same, if it says that the process can map no more: `asked` bytes were wanted.
    #[must_use]
    pub fn with_asked(mut self, asked: u64) -> Self {
        if self.0.failure.kind == ErrorKind::NoMemory {
            self.0.failure.requested = asked;
        }
        self
    }

    /// The same with sizes, where a limit says no: `asked` bytes were wanted, `most` are possible.
    #[must_use]
    pub fn with_limit(mut self, asked: u64, most: u64) -> Self {
        let failure = &mut self.0.failure;
        (failure.requested, failure.available, failure.total) = (asked, most, most);
        self
    }

    /// The same with what it is about, in place of the kind, and after the step.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.0.why = why.into();
        self
    }

    /// The same after a step that says more of what refused it: a limit's name.
    #[must_use]
    pub fn at(mut self, step: &'static str) -> Self {
        self.0.failure.step = step;
        self
    }

    /// The same with the number of the user whose object it is.
    #[must_use]
    pub fn of_user(mut self, owner: u32) -> Self {
        self.0.failure.owner = Some(owner);
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
        let Inner { failure, subject, why } = &*self.0;
        if failure.kind == ErrorKind::NoSpace && failure.total != 0 {
            return no_space(f, failure, subject);
        }
        write!(f, "{} failed", failure.step)?;
        if !subject.is_empty() {
            write!(f, " for {subject}")?;
        }
        if why.is_empty() {
            write!(f, ": {}", failure.kind)?;
            if failure.kind == ErrorKind::NoMemory && failure.requested != 0 {
                write!(f, ", of which {} bytes were asked for", failure.requested)?;
            }
        } else {
            write!(f, ": {why}")?;
        }
        if failure.os_code != 0 {
            write!(f, " ({})", io::Error::from_raw_os_error(failure.os_code))?;
        }
        Ok(())
    }
}

/// `segment needs 128 MiB but /dev/shm has 60 MiB free of 64; in Docker pass --shm-size=256m`
fn no_space(f: &mut fmt::Formatter<'_>, failure: &ProviderFailure, place: &str) -> fmt::Result {
    let &ProviderFailure { requested, available, total, .. } = failure;
    let (unit, name) =
        if requested.min(total) >= 1 << 20 { (1 << 20, "MiB") } else { (1024, "KiB") };
    write!(
        f,
        "segment needs {} {name} but {place} has {} {name} free of {}",
        requested.div_ceil(unit),
        available / unit,
        total / unit
    )?;
    if place == "/dev/shm" {
        let wanted = total.saturating_sub(available).saturating_add(requested);
        let mebibytes = (wanted >> 20).saturating_add(1).next_power_of_two();
        write!(f, "; in Docker pass --shm-size={mebibytes}m")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A code that means what is written on it.
    #[derive(Clone, Copy)]
    struct Plain(i32, ErrorKind);

    impl SystemCode for Plain {
        fn number(self) -> i32 {
            self.0
        }

        fn kind(self, _step: &str) -> ErrorKind {
            self.1
        }
    }

    #[test]
    fn a_full_place_is_explained() {
        let text = |asked, place| {
            Error::full(Plain(5, ErrorKind::Other), asked, (60 << 20, 64 << 20), place).to_string()
        };
        assert_eq!(
            text(128 << 20, "/dev/shm"),
            "segment needs 128 MiB but /dev/shm has 60 MiB free of 64; in Docker pass \
             --shm-size=256m"
        );
        assert_eq!(
            text(128 << 20, r"C:\Temp"),
            r"segment needs 128 MiB but C:\Temp has 60 MiB free of 64"
        );
        assert_eq!(
            text(100 << 10, "/var/lib/dsm"),
            "segment needs 100 KiB but /var/lib/dsm has 61440 KiB free of 65536"
        );
    }

    #[test]
    fn sizes_are_asked_for_only_where_memory_ran_out() {
        let denied = Error::os(Plain(13, ErrorKind::PermissionDenied), "open", "/dev/shm/x");
        let same = denied.clone().with_space(1, "/dev/shm", || unreachable!());
        assert_eq!(same.to_string(), denied.to_string());
        let full = Error::os(Plain(28, ErrorKind::NoSpace), "ftruncate", "/dev/shm/x");
        let failure = full.with_space(1, "/dev/shm", || (2, 3)).failure();
        assert_eq!((failure.requested, failure.available, failure.total), (1, 2, 3));
        assert_eq!((failure.os_code, failure.step), (28, "ftruncate"));
    }

    #[test]
    fn texts_name_the_step_the_object_and_the_cause() {
        let error = Error::os(Plain(13, ErrorKind::PermissionDenied), "open", "/x/dsm.demo.ctl");
        let system = io::Error::from_raw_os_error(13);
        assert_eq!(
            error.to_string(),
            format!("open failed for /x/dsm.demo.ctl: permission denied ({system})")
        );
        assert_eq!((error.kind(), error.os_code()), (ErrorKind::PermissionDenied, 13));
        let error = Error::new(ErrorKind::Foreign, "removal", "x is another object; left alone");
        assert_eq!(error.to_string(), "removal failed: x is another object; left alone");
        assert_eq!(error.os_code(), 0);
    }
}
