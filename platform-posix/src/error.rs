//! [`Error`]: what failed, on which object, why, and what to do about it.

use core::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use dsm_core::error::{ErrorKind, ProviderFailure};
use dsm_core::provider::ProviderError;

use crate::sys::{self, Errno};

/// An error of a POSIX provider.
///
/// Its text says what failed and what to do next; [`kind`](ProviderError::kind) is for programs,
/// [`failure`](ProviderError::failure) reduces it to plain data.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    failure: ProviderFailure,
    /// The object or file system concerned; empty if the explanation says it.
    subject: String,
    /// An explanation beyond the kind; empty if the system's own text is all there is to say.
    why: String,
}

impl Error {
    /// An error found by this crate.
    pub(crate) fn new(kind: ErrorKind, step: &'static str, why: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            failure: ProviderFailure::new(kind, step),
            subject: String::new(),
            why: why.into(),
        }))
    }

    /// An error of a system call on `subject`.
    pub(crate) fn os(errno: Errno, step: &'static str, subject: impl Into<String>) -> Self {
        let failure = ProviderFailure {
            os_code: errno.0,
            ..ProviderFailure::new(kind_of(errno, step), step)
        };
        Self(Box::new(Inner { failure, subject: subject.into(), why: String::new() }))
    }

    /// The same with sizes, if it says that memory ran out: `place` is where `fd` lies.
    pub(crate) fn with_space(self, asked: u64, fd: BorrowedFd<'_>, place: &str) -> Self {
        if self.0.failure.kind != ErrorKind::NoSpace {
            return self;
        }
        let (available, total) = sys::space(fd);
        self.with_sizes(asked, available, total, place)
    }

    /// The same with sizes.
    pub(crate) fn with_sizes(mut self, asked: u64, free: u64, total: u64, place: &str) -> Self {
        self.0.failure.requested = asked;
        self.0.failure.available = free;
        self.0.failure.total = total;
        place.clone_into(&mut self.0.subject);
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

impl std::error::Error for Error {}

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

/// The kind of a system's error code. What a code means depends on the call in a few cases.
fn kind_of(errno: Errno, step: &str) -> ErrorKind {
    match errno.0 {
        libc::ENOENT | libc::EIDRM => ErrorKind::NotFound,
        libc::EEXIST => ErrorKind::AlreadyExists,
        // A link, a directory, a socket: something, but nothing of ours.
        libc::ELOOP | libc::EMLINK | libc::EISDIR | libc::ENXIO | libc::ENOTDIR => {
            ErrorKind::Foreign
        }
        // What glibc's shm_open makes of a directory; our names are always valid.
        libc::EINVAL if step == "open" => ErrorKind::Foreign,
        libc::ENOSPC | libc::EDQUOT => ErrorKind::NoSpace,
        libc::ENOMEM => ErrorKind::NoMemory,
        libc::EACCES | libc::EPERM | libc::EROFS => ErrorKind::PermissionDenied,
        libc::EFBIG | libc::EOVERFLOW => ErrorKind::InvalidSize,
        libc::EINVAL if step == "shmget" || step == "mmap" => ErrorKind::InvalidSize,
        libc::ENAMETOOLONG => ErrorKind::InvalidName,
        libc::EMFILE | libc::ENFILE => ErrorKind::TooMany,
        libc::ETIMEDOUT => ErrorKind::TimedOut,
        libc::ENOSYS | libc::EOPNOTSUPP => ErrorKind::Unsupported,
        _ => ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_system_is_explained() {
        let mut error = Error::os(Errno(libc::ENOSPC), "posix_fallocate", "/dev/shm");
        error.0.failure.requested = 128 << 20;
        error.0.failure.available = 60 << 20;
        error.0.failure.total = 64 << 20;
        assert_eq!(
            error.to_string(),
            "segment needs 128 MiB but /dev/shm has 60 MiB free of 64; in Docker pass \
             --shm-size=256m"
        );
        "/var/lib/dsm".clone_into(&mut error.0.subject);
        error.0.failure.requested = 100 << 10;
        assert_eq!(
            error.to_string(),
            "segment needs 100 KiB but /var/lib/dsm has 61440 KiB free of 65536"
        );
    }

    #[test]
    fn texts_name_the_step_the_object_and_the_cause() {
        let error = Error::os(Errno(libc::EACCES), "open", "/dev/shm/dsm.demo.ctl");
        assert_eq!(
            error.to_string(),
            "open failed for /dev/shm/dsm.demo.ctl: permission denied (Permission denied (os \
             error 13))"
        );
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(error.failure().os_code, libc::EACCES);
    }
}
