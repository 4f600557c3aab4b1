//! Bare system calls: what a segment costs when nobody keeps books.

use std::ffi::CString;
use std::ptr::NonNull;

/// A POSIX shared-memory object made by nothing but system calls.
pub struct BareSegment {
    name: CString,
    bytes: usize,
}

impl BareSegment {
    /// Names an object; nothing is created yet.
    ///
    /// # Panics
    ///
    /// Never: the name has no NUL.
    #[must_use]
    pub fn new(label: &str, bytes: usize) -> Self {
        let name = format!("/bare-{label}-{}", std::process::id());
        Self { name: CString::new(name).expect("no NUL in the name"), bytes }
    }

    /// Creates the object with all its memory, and maps it.
    ///
    /// # Panics
    ///
    /// If the system refuses.
    #[must_use]
    pub fn create(&self) -> NonNull<u8> {
        // SAFETY: the name is a C string.
        let fd = unsafe {
            libc::shm_open(self.name.as_ptr(), libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, 0o600)
        };
        assert!(fd >= 0, "shm_open: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is open.
        let status = unsafe { libc::posix_fallocate(fd, 0, self.bytes as libc::off_t) };
        assert_eq!(status, 0, "posix_fallocate");
        self.map(fd)
    }

    /// Opens the existing object and maps it.
    ///
    /// # Panics
    ///
    /// If the system refuses.
    #[must_use]
    pub fn open(&self) -> NonNull<u8> {
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::shm_open(self.name.as_ptr(), libc::O_RDWR, 0) };
        assert!(fd >= 0, "shm_open: {}", std::io::Error::last_os_error());
        self.map(fd)
    }

    fn map(&self, fd: libc::c_int) -> NonNull<u8> {
        // SAFETY: a mapping at an address of the system's choice touches no memory of anybody.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                self.bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is ours and not used any more.
        unsafe { libc::close(fd) };
        NonNull::new(base.cast()).expect("mmap returned the null page")
    }

    /// Unmaps what [`create`](Self::create) or [`open`](Self::open) returned.
    ///
    /// # Safety
    ///
    /// `base` must come from this object and not be used any more.
    pub unsafe fn unmap(&self, base: NonNull<u8>) {
        // SAFETY: the caller's promise.
        unsafe { libc::munmap(base.as_ptr().cast(), self.bytes) };
    }

    /// Removes the name; an absent one is fine.
    pub fn unlink(&self) {
        // SAFETY: the name is a C string.
        unsafe { libc::shm_unlink(self.name.as_ptr()) };
    }
}
