//! [`Error`]: what failed, on which object, why, and what to do about it.

use core::fmt;
use std::io;

use dsm_core::error::{ErrorKind, ProviderFailure};
use dsm_core::provider::ProviderError;
use windows_sys::Win32::Foundation as code;

use crate::sys::Code;

/// An error of a Windows provider.
///
/// Its text says what failed and what to do next; [`kind`](ProviderError::kind) is for programs,
/// [`failure`](ProviderError::failure) reduces it to plain data.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    failure: ProviderFailure,
    /// The object or folder concerned; empty if the explanation says it.
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
    pub(crate) fn os(code: Code, step: &'static str, subject: impl Into<String>) -> Self {
        let failure =
            ProviderFailure { os_code: code.0 as i32, ..ProviderFailure::new(kind_of(code), step) };
        Self(Box::new(Inner { failure, subject: subject.into(), why: String::new() }))
    }

    /// The same with another kind, where the call's circumstances say more than its code.
    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.failure.kind = kind;
        self
    }

    /// An error that says how much memory was asked for and how much there is.
    pub(crate) fn full(code: Code, asked: u64, (free, total): (u64, u64), place: &str) -> Self {
        let mut error = Self::os(code, "reserving", place);
        error.0.failure.kind = ErrorKind::NoSpace;
        error.0.failure.requested = asked;
        error.0.failure.available = free;
        error.0.failure.total = total;
        error
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

/// `segment needs 128 MiB but C:\Temp has 60 MiB free of 64`
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
    )
}

/// The kind of a system's error code.
fn kind_of(code: Code) -> ErrorKind {
    match code.0 {
        code::ERROR_FILE_NOT_FOUND | code::ERROR_PATH_NOT_FOUND | code::ERROR_DELETE_PENDING => {
            ErrorKind::NotFound
        }
        code::ERROR_FILE_EXISTS | code::ERROR_ALREADY_EXISTS => ErrorKind::AlreadyExists,
        // The name belongs to an object of another type.
        code::ERROR_INVALID_HANDLE => ErrorKind::Foreign,
        code::ERROR_DISK_FULL
        | code::ERROR_HANDLE_DISK_FULL
        | code::ERROR_DISK_QUOTA_EXCEEDED
        | code::ERROR_COMMITMENT_LIMIT
        | code::ERROR_COMMITMENT_MINIMUM
        | code::ERROR_NOT_ENOUGH_QUOTA
        | code::ERROR_NO_SYSTEM_RESOURCES => ErrorKind::NoSpace,
        code::ERROR_NOT_ENOUGH_MEMORY | code::ERROR_OUTOFMEMORY => ErrorKind::NoMemory,
        code::ERROR_ACCESS_DENIED
        | code::ERROR_PRIVILEGE_NOT_HELD
        | code::ERROR_WRITE_PROTECT
        | code::ERROR_SHARING_VIOLATION => ErrorKind::PermissionDenied,
        code::ERROR_FILE_TOO_LARGE | code::ERROR_FILE_INVALID => ErrorKind::InvalidSize,
        code::ERROR_INVALID_NAME | code::ERROR_BAD_PATHNAME | code::ERROR_FILENAME_EXCED_RANGE => {
            ErrorKind::InvalidName
        }
        code::ERROR_TOO_MANY_OPEN_FILES => ErrorKind::TooMany,
        code::ERROR_NOT_SUPPORTED | code::ERROR_CALL_NOT_IMPLEMENTED => ErrorKind::Unsupported,
        _ => ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_explained() {
        let full = |asked| {
            let sizes = (60 << 20, 64 << 20);
            Error::full(Code(code::ERROR_DISK_FULL), asked, sizes, r"C:\Temp").to_string()
        };
        assert_eq!(full(128 << 20), r"segment needs 128 MiB but C:\Temp has 60 MiB free of 64");
        assert_eq!(
            full(100 << 10),
            r"segment needs 100 KiB but C:\Temp has 61440 KiB free of 65536"
        );
    }

    #[test]
    fn texts_name_the_step_the_object_and_the_cause() {
        let error = Error::os(Code(code::ERROR_ACCESS_DENIED), "open", r"C:\Temp\dsm.demo.ctl");
        let text = error.to_string();
        let expected = r"open failed for C:\Temp\dsm.demo.ctl: permission denied (";
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(error.failure().os_code, 5);
    }
}
