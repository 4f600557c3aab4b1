//! What the system's error codes mean; [`Error`] itself is that of all platforms.

use dsm_core::error::{ErrorKind, Reason};
pub use platform_common::Error;
use platform_common::SystemCode;

use crate::sys::Errno;

/// Step: an object that should be there is opened.
pub(crate) const OPEN: &str = "open";
/// Step: an object that should not be there is created.
pub(crate) const CREATE: &str = "create";
/// Step: the directory is opened.
pub(crate) const OPEN_DIRECTORY: &str = "opening the directory";
/// Step: the directory is listed.
pub(crate) const LIST: &str = "listing";

impl SystemCode for Errno {
    fn number(self) -> i32 {
        self.0
    }

    /// Depends on the step in a few cases: what is not there is the directory where something is
    /// created, and the object elsewhere.
    fn meaning(self, step: &str) -> (ErrorKind, Reason) {
        let of_the_place = [CREATE, OPEN_DIRECTORY, LIST].contains(&step);
        let reason = match self.0 {
            libc::ENOENT if of_the_place => Reason::NoSuchDirectory,
            libc::EACCES | libc::EPERM if of_the_place => Reason::DirectoryDenied,
            libc::ELOOP if step == OPEN_DIRECTORY => Reason::NotADirectory,
            libc::ENOTDIR => Reason::NotADirectory,
            libc::EEXIST => Reason::NameTaken,
            // A link, a directory, a socket: something, but nothing of ours.
            libc::ELOOP | libc::EMLINK | libc::EISDIR | libc::ENXIO => Reason::NotAnObject,
            // What glibc's shm_open makes of a directory; our names are always valid.
            libc::EINVAL if [OPEN, CREATE].contains(&step) => Reason::NotAnObject,
            libc::EROFS => Reason::ReadOnlyMount,
            libc::EDQUOT => Reason::Quota,
            libc::EFBIG | libc::EOVERFLOW => Reason::LargestFile,
            libc::EMFILE => Reason::DescriptorLimit,
            libc::ENFILE => Reason::SystemDescriptorLimit,
            // Descriptors that are kept are looked at before they are used.
            libc::EBADF => Reason::DescriptorClosed,
            // Of addresses only where something is mapped.
            libc::ENOMEM if !["mmap", "shmat"].contains(&step) => Reason::MachineFull,
            _ => Reason::Unknown,
        };
        if reason != Reason::Unknown {
            return (reason.kind(), reason);
        }
        let kind = match self.0 {
            libc::ENOENT | libc::EIDRM => ErrorKind::NotFound,
            libc::ENOSPC => ErrorKind::NoSpace,
            libc::ENOMEM => ErrorKind::NoMemory,
            libc::EACCES | libc::EPERM => ErrorKind::PermissionDenied,
            libc::EINVAL if ["shmget", "mmap"].contains(&step) => ErrorKind::InvalidSize,
            libc::ENAMETOOLONG => ErrorKind::InvalidName,
            libc::ETIMEDOUT => ErrorKind::TimedOut,
            libc::ENOSYS | libc::EOPNOTSUPP => ErrorKind::Unsupported,
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
        let error = Error::os(Errno(libc::EACCES), OPEN, "/dev/shm/dsm.demo.ctl");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(error.failure().os_code, libc::EACCES);
        let text = error.to_string();
        assert!(text.ends_with("permission denied (Permission denied (os error 13))"), "{text}");
    }

    /// Every code that the calls are documented to return, by the steps that differ.
    #[test]
    fn each_code_means_what_it_says() {
        use ErrorKind as K;
        use Reason as R;

        let steps = [OPEN, CREATE, OPEN_DIRECTORY, LIST, "ftruncate", "mmap", "shmget", "shmat"];
        // The code, the reasons by these steps where they are known, and the kind where they
        // aren't.
        let all = |reason: R| [reason; 8];
        let place = |here: R, elsewhere: R| {
            [elsewhere, here, here, here, elsewhere, elsewhere, elsewhere, elsewhere]
        };
        let unknown = all(R::Unknown);
        let (object, full) = (R::NotAnObject, R::MachineFull);
        let rows: &[(i32, [R; 8], K)] = &[
            (libc::ENOENT, place(R::NoSuchDirectory, R::Unknown), K::NotFound),
            (libc::EIDRM, unknown, K::NotFound),
            (libc::EACCES, place(R::DirectoryDenied, R::Unknown), K::PermissionDenied),
            (libc::EPERM, place(R::DirectoryDenied, R::Unknown), K::PermissionDenied),
            (libc::EROFS, all(R::ReadOnlyMount), K::PermissionDenied),
            (libc::ENOTDIR, all(R::NotADirectory), K::Foreign),
            (
                libc::ELOOP,
                [object, object, R::NotADirectory, object, object, object, object, object],
                K::Foreign,
            ),
            (libc::EMLINK, all(object), K::Foreign),
            (libc::EISDIR, all(object), K::Foreign),
            (libc::ENXIO, all(object), K::Foreign),
            (libc::EEXIST, all(R::NameTaken), K::AlreadyExists),
            (libc::ENOSPC, unknown, K::NoSpace),
            (libc::EDQUOT, all(R::Quota), K::NoSpace),
            (
                libc::ENOMEM,
                [full, full, full, full, full, R::Unknown, full, R::Unknown],
                K::NoMemory,
            ),
            (libc::EFBIG, all(R::LargestFile), K::InvalidSize),
            (libc::EOVERFLOW, all(R::LargestFile), K::InvalidSize),
            (libc::EMFILE, all(R::DescriptorLimit), K::TooMany),
            (libc::ENFILE, all(R::SystemDescriptorLimit), K::TooMany),
            (libc::EBADF, all(R::DescriptorClosed), K::Other),
            (libc::ENAMETOOLONG, unknown, K::InvalidName),
            (libc::ETIMEDOUT, unknown, K::TimedOut),
            (libc::ENOSYS, unknown, K::Unsupported),
            (libc::EOPNOTSUPP, unknown, K::Unsupported),
            (libc::EIO, unknown, K::Other),
            (libc::EINTR, unknown, K::Other),
            (libc::EBUSY, unknown, K::Other),
            (libc::ENODEV, unknown, K::Other),
            (libc::ENOLCK, unknown, K::Other),
            (libc::ETXTBSY, unknown, K::Other),
        ];
        for (code, reasons, kind) in rows {
            for (step, reason) in steps.into_iter().zip(reasons) {
                let known = *reason != R::Unknown;
                let kind = if known { reason.kind() } else { *kind };
                assert_eq!(Errno(*code).meaning(step), (kind, *reason), "{code} at {step}");
            }
        }
        let invalid = |step| Errno(libc::EINVAL).meaning(step);
        for step in [OPEN, CREATE] {
            assert_eq!(invalid(step), (K::Foreign, object));
        }
        for step in ["shmget", "mmap"] {
            assert_eq!(invalid(step), (K::InvalidSize, R::Unknown));
        }
        assert_eq!(invalid("fchmod"), (K::Other, R::Unknown));
    }
}
