//! What the system's error codes mean; [`Error`] itself is that of all platforms.

use dsm_core::error::{ErrorKind, Reason};
pub use platform_common::Error;
use platform_common::SystemCode;
use windows_sys::Win32::Foundation as code;

use crate::sys::Code;

/// Step: an object that should not be there is created.
pub(crate) const CREATE: &str = "create";
/// Step: the directory is opened.
pub(crate) const OPEN_DIRECTORY: &str = "opening the directory";
/// Step: the directory is listed.
pub(crate) const LIST: &str = "listing";

impl SystemCode for Code {
    fn number(self) -> i32 {
        self.0 as i32
    }

    /// Depends on the step in a few cases: what is not there is the directory where something is
    /// created, and the object elsewhere.
    fn meaning(self, step: &str) -> (ErrorKind, Reason) {
        let of_the_place = [CREATE, OPEN_DIRECTORY, LIST].contains(&step);
        let reason = match self.0 {
            code::ERROR_PATH_NOT_FOUND => Reason::NoSuchDirectory,
            code::ERROR_FILE_NOT_FOUND if of_the_place => Reason::NoSuchDirectory,
            code::ERROR_DIRECTORY => Reason::NotADirectory,
            code::ERROR_ACCESS_DENIED if of_the_place => Reason::DirectoryDenied,
            code::ERROR_FILE_EXISTS | code::ERROR_ALREADY_EXISTS => Reason::NameTaken,
            // The name belongs to an object of another type.
            code::ERROR_INVALID_HANDLE => Reason::NotAnObject,
            code::ERROR_WRITE_PROTECT => Reason::ReadOnlyMount,
            code::ERROR_SHARING_VIOLATION | code::ERROR_LOCK_VIOLATION => Reason::OpenElsewhere,
            code::ERROR_DISK_FULL | code::ERROR_HANDLE_DISK_FULL => Reason::DiskFull,
            code::ERROR_DISK_QUOTA_EXCEEDED => Reason::Quota,
            code::ERROR_COMMITMENT_LIMIT | code::ERROR_COMMITMENT_MINIMUM => Reason::MachineFull,
            code::ERROR_FILE_TOO_LARGE => Reason::LargestFile,
            code::ERROR_TOO_MANY_OPEN_FILES => Reason::DescriptorLimit,
            _ => Reason::Unknown,
        };
        if reason != Reason::Unknown {
            return (reason.kind(), reason);
        }
        let kind = match self.0 {
            code::ERROR_FILE_NOT_FOUND | code::ERROR_DELETE_PENDING => ErrorKind::NotFound,
            code::ERROR_NOT_ENOUGH_QUOTA | code::ERROR_NO_SYSTEM_RESOURCES => ErrorKind::NoSpace,
            code::ERROR_NOT_ENOUGH_MEMORY | code::ERROR_OUTOFMEMORY => ErrorKind::NoMemory,
            code::ERROR_ACCESS_DENIED | code::ERROR_PRIVILEGE_NOT_HELD => {
                ErrorKind::PermissionDenied
            }
            code::ERROR_FILE_INVALID => ErrorKind::InvalidSize,
            code::ERROR_INVALID_NAME
            | code::ERROR_BAD_PATHNAME
            | code::ERROR_FILENAME_EXCED_RANGE => ErrorKind::InvalidName,
            code::ERROR_NOT_SUPPORTED | code::ERROR_CALL_NOT_IMPLEMENTED => ErrorKind::Unsupported,
            _ => ErrorKind::Other,
        };
        (kind, reason)
    }
}

#[cfg(test)]
mod tests {
    use dsm_core::provider::ProviderError;

    use super::*;

    #[test]
    fn codes_tell_their_kind_and_say_themselves() {
        let error = Error::os(Code(code::ERROR_ACCESS_DENIED), "open", r"C:\Temp\dsm.demo.ctl");
        let text = error.to_string();
        let expected = r"open failed for C:\Temp\dsm.demo.ctl: permission denied (";
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(error.failure().os_code, 5);
    }

    /// Every code that the calls return, where an object is opened and where one is created.
    #[test]
    fn each_code_means_what_it_says() {
        use ErrorKind as K;
        use Reason as R;

        let same = |reason: R| [reason; 2];
        let rows: &[(u32, [R; 2], K)] = &[
            (code::ERROR_FILE_NOT_FOUND, [R::Unknown, R::NoSuchDirectory], K::NotFound),
            (code::ERROR_PATH_NOT_FOUND, same(R::NoSuchDirectory), K::NotFound),
            (code::ERROR_DELETE_PENDING, same(R::Unknown), K::NotFound),
            (code::ERROR_DIRECTORY, same(R::NotADirectory), K::Foreign),
            (code::ERROR_ACCESS_DENIED, [R::Unknown, R::DirectoryDenied], K::PermissionDenied),
            (code::ERROR_PRIVILEGE_NOT_HELD, same(R::Unknown), K::PermissionDenied),
            (code::ERROR_WRITE_PROTECT, same(R::ReadOnlyMount), K::PermissionDenied),
            (code::ERROR_SHARING_VIOLATION, same(R::OpenElsewhere), K::PermissionDenied),
            (code::ERROR_LOCK_VIOLATION, same(R::OpenElsewhere), K::PermissionDenied),
            (code::ERROR_FILE_EXISTS, same(R::NameTaken), K::AlreadyExists),
            (code::ERROR_ALREADY_EXISTS, same(R::NameTaken), K::AlreadyExists),
            (code::ERROR_INVALID_HANDLE, same(R::NotAnObject), K::Foreign),
            (code::ERROR_DISK_FULL, same(R::DiskFull), K::NoSpace),
            (code::ERROR_HANDLE_DISK_FULL, same(R::DiskFull), K::NoSpace),
            (code::ERROR_DISK_QUOTA_EXCEEDED, same(R::Quota), K::NoSpace),
            (code::ERROR_COMMITMENT_LIMIT, same(R::MachineFull), K::NoSpace),
            (code::ERROR_COMMITMENT_MINIMUM, same(R::MachineFull), K::NoSpace),
            (code::ERROR_NOT_ENOUGH_QUOTA, same(R::Unknown), K::NoSpace),
            (code::ERROR_NO_SYSTEM_RESOURCES, same(R::Unknown), K::NoSpace),
            (code::ERROR_NOT_ENOUGH_MEMORY, same(R::Unknown), K::NoMemory),
            (code::ERROR_OUTOFMEMORY, same(R::Unknown), K::NoMemory),
            (code::ERROR_FILE_TOO_LARGE, same(R::LargestFile), K::InvalidSize),
            (code::ERROR_FILE_INVALID, same(R::Unknown), K::InvalidSize),
            (code::ERROR_INVALID_NAME, same(R::Unknown), K::InvalidName),
            (code::ERROR_BAD_PATHNAME, same(R::Unknown), K::InvalidName),
            (code::ERROR_FILENAME_EXCED_RANGE, same(R::Unknown), K::InvalidName),
            (code::ERROR_TOO_MANY_OPEN_FILES, same(R::DescriptorLimit), K::TooMany),
            (code::ERROR_NOT_SUPPORTED, same(R::Unknown), K::Unsupported),
            (code::ERROR_CALL_NOT_IMPLEMENTED, same(R::Unknown), K::Unsupported),
            (code::ERROR_IO_DEVICE, same(R::Unknown), K::Other),
        ];
        for (number, reasons, kind) in rows {
            for (step, reason) in ["open", CREATE].into_iter().zip(reasons) {
                let known = *reason != R::Unknown;
                let kind = if known { reason.kind() } else { *kind };
                assert_eq!(Code(*number).meaning(step), (kind, *reason), "{number} at {step}");
            }
        }
    }
}
