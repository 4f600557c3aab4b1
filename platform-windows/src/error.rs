//! What the system's error codes mean; [`Error`] itself is that of all platforms.

use dsm_core::error::ErrorKind;
pub use platform_common::Error;
use platform_common::SystemCode;
use windows_sys::Win32::Foundation as code;

use crate::sys::Code;

impl SystemCode for Code {
    fn number(self) -> i32 {
        self.0 as i32
    }

    fn kind(self, _step: &str) -> ErrorKind {
        match self.0 {
            code::ERROR_FILE_NOT_FOUND
            | code::ERROR_PATH_NOT_FOUND
            | code::ERROR_DELETE_PENDING => ErrorKind::NotFound,
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
            code::ERROR_INVALID_NAME
            | code::ERROR_BAD_PATHNAME
            | code::ERROR_FILENAME_EXCED_RANGE => ErrorKind::InvalidName,
            code::ERROR_TOO_MANY_OPEN_FILES => ErrorKind::TooMany,
            code::ERROR_NOT_SUPPORTED | code::ERROR_CALL_NOT_IMPLEMENTED => ErrorKind::Unsupported,
            _ => ErrorKind::Other,
        }
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
}
