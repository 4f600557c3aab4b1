//! The C library's process-shared reader-writer lock, the peer of ours.

use std::ptr::NonNull;

/// A reader-writer lock of the C library in shared memory (an anonymous shared mapping: what lies
/// behind the page makes no difference to the cycle).
pub struct Rwlock {
    at: NonNull<libc::pthread_rwlock_t>,
}

const BYTES: usize = 4096;

impl Rwlock {
    /// Makes one.
    ///
    /// # Panics
    ///
    /// If the system refuses.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: a fresh anonymous mapping touches no memory of anybody.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(page, libc::MAP_FAILED, "mmap of a page");
        let at = NonNull::new(page.cast()).expect("mmap returned the null page");
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_rwlockattr_t>::uninit();
        // SAFETY: the pointer is valid for a write of the type that the function initialises.
        let status = unsafe { libc::pthread_rwlockattr_init(attributes.as_mut_ptr()) };
        assert_eq!(status, 0, "pthread_rwlockattr_init");
        // SAFETY: initialised in the line above.
        let status = unsafe {
            libc::pthread_rwlockattr_setpshared(
                attributes.as_mut_ptr(),
                libc::PTHREAD_PROCESS_SHARED,
            )
        };
        assert_eq!(status, 0, "pthread_rwlockattr_setpshared");
        // SAFETY: the page is ours, large enough and aligned; the attributes are initialised.
        let status = unsafe { libc::pthread_rwlock_init(at.as_ptr(), attributes.as_ptr()) };
        assert_eq!(status, 0, "pthread_rwlock_init");
        Self { at }
    }

    /// Acquires shared and releases.
    #[inline]
    pub fn shared_cycle(&self) {
        // SAFETY: the lock is initialised and lives as long as `self`.
        let status = unsafe { libc::pthread_rwlock_rdlock(self.at.as_ptr()) };
        debug_assert_eq!(status, 0);
        // SAFETY: as above, and held by this thread.
        let status = unsafe { libc::pthread_rwlock_unlock(self.at.as_ptr()) };
        debug_assert_eq!(status, 0);
    }

    /// Acquires alone and releases.
    #[inline]
    pub fn exclusive_cycle(&self) {
        // SAFETY: the lock is initialised and lives as long as `self`.
        let status = unsafe { libc::pthread_rwlock_wrlock(self.at.as_ptr()) };
        debug_assert_eq!(status, 0);
        // SAFETY: as above, and held by this thread.
        let status = unsafe { libc::pthread_rwlock_unlock(self.at.as_ptr()) };
        debug_assert_eq!(status, 0);
    }
}

impl Default for Rwlock {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Rwlock {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new`, and nobody holds the lock: cycles release.
        unsafe { libc::munmap(self.at.as_ptr().cast(), BYTES) };
    }
}
