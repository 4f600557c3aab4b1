//! What the system's error codes mean; [`Error`] itself is that of all platforms.

use dsm_core::error::ErrorKind;
pub use platform_common::Error;
use platform_common::SystemCode;

use crate::sys::Errno;

impl SystemCode for Errno {
    fn number(self) -> i32 {
        self.0
    }

    /// Depends on the call in a few cases.
    fn kind(self, step: &str) -> ErrorKind {
        match self.0 {
            libc::ENOENT | libc::EIDRM => ErrorKind::NotFound,
            libc::EEXIST => ErrorKind::AlreadyExists,
            // A link, a directory, a socket: something, but nothing of ours.
            libc::ELOOP | libc::EMLINK | libc::EISDIR | libc::ENXIO | libc::ENOTDIR => {
                ErrorKind::Foreign
            }
            // What glibc's shm_open makes of a directory; our names are always valid.
            libc::EINVAL if step.starts_with("open") => ErrorKind::Foreign,
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
}

#[cfg(test)]
mod tests {
    use dsm_core::provider::ProviderError;

    use super::*;

    #[test]
    fn codes_tell_their_kind_and_say_themselves() {
        let error = Error::os(Errno(libc::EACCES), "open", "/dev/shm/dsm.demo.ctl");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(error.failure().os_code, libc::EACCES);
        let text = error.to_string();
        assert!(text.ends_with("permission denied (Permission denied (os error 13))"), "{text}");
        let invalid = |step| Errno(libc::EINVAL).kind(step);
        assert_eq!(invalid("open"), ErrorKind::Foreign);
        assert_eq!([invalid("shmget"), invalid("mmap")], [ErrorKind::InvalidSize; 2]);
        assert_eq!(invalid("fchmod"), ErrorKind::Other);
    }
}
