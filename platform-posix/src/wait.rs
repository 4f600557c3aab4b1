//! Waiting on a word in shared memory.
//!
//! | system | waits with | how waiters in other processes are found |
//! |---|---|---|
//! | Linux | `futex` | no `FUTEX_PRIVATE_FLAG`: by the page behind the address |
//! | FreeBSD | `_umtx_op` | the operations without `PRIVATE`: by the object that is mapped, as long as the mapping is one that children inherit shared, which `MAP_SHARED` makes it |
//! | macOS 14.4 | `os_sync_wait_on_address` | flag `SHARED` |
//! | macOS before | `__ulock_wait` | operation `UL_COMPARE_AND_WAIT_SHARED` |
//! | others | polling | |
//!
//! So processes that map a word at different addresses meet. The functions of macOS are looked up
//! when first needed: a program built with them would not start on a system that lacks one. Where
//! neither is there, or the kernel refuses it for this memory, a waiter polls.
//!
//! Every wait is bounded by its caller, so a wake that got lost with a dead process, or that was
//! not sent because the waker polls, costs time and nothing else. What a system's call returns
//! (woken, changed, timed out, interrupted) is not looked at but to tell whether it waited at all:
//! the caller looks at the word.

use std::time::Duration;

use dsm_core::env::Wait;
use dsm_core::sync::AtomicU32;

use crate::liveness::Posix;

impl Wait for Posix {
    #[doc(alias = "FUTEX_WAIT")]
    #[doc(alias = "UMTX_OP_WAIT_UINT")]
    #[doc(alias = "os_sync_wait_on_address")]
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Duration) {
        if !timeout.is_zero() {
            system::wait(word, expected, timeout.min(LONG));
        }
    }

    #[doc(alias = "FUTEX_WAKE")]
    #[doc(alias = "UMTX_OP_WAKE")]
    #[doc(alias = "os_sync_wake_by_address_all")]
    fn wake_all(&self, word: &AtomicU32) {
        system::wake_all(word);
    }
}

/// As good as for ever (the caller looks around and comes back), and fits all units that systems
/// use: `__ulock_wait` counts microseconds in 32 bits.
const LONG: Duration = Duration::from_secs(3600);

/// A timeout as the system's calls take it.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
fn timespec(timeout: Duration) -> libc::timespec {
    let mut time = std::mem::MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: zeros are a valid timespec.
    let time = unsafe { time.assume_init_mut() };
    time.tv_sec = timeout.as_secs() as libc::time_t;
    time.tv_nsec = timeout.subsec_nanos() as _;
    *time
}

#[cfg(target_os = "linux")]
mod system {
    use super::{AtomicU32, Duration, timespec};

    pub(super) fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
        let time = timespec(timeout);
        // SAFETY: the word is mapped and aligned for the length of the borrow; the timeout is
        // valid during the call. The kernel only reads the word.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                std::ptr::from_ref(word),
                libc::FUTEX_WAIT,
                expected,
                &raw const time,
            )
        };
    }

    pub(super) fn wake_all(word: &AtomicU32) {
        let (word, all) = (std::ptr::from_ref(word), libc::c_int::MAX);
        // SAFETY: the address is only a name here; the kernel does not touch the word.
        unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, all) };
    }
}

#[cfg(target_os = "freebsd")]
mod system {
    use super::{AtomicU32, Duration, timespec};

    pub(super) fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
        let mut time = std::mem::MaybeUninit::<libc::_umtx_time>::zeroed();
        // SAFETY: zeros are a valid timeout: relative, with no flags.
        let time = unsafe { time.assume_init_mut() };
        time._timeout = timespec(timeout);
        // By the wall clock, unless told otherwise, which somebody may set meanwhile.
        time._clockid = libc::CLOCK_MONOTONIC as u32;
        // SAFETY: the word is mapped and aligned for the length of the borrow, and only read; the
        // timeout is valid during the call, its size goes in the place of an address.
        unsafe {
            libc::_umtx_op(
                word.as_ptr().cast(),
                libc::UMTX_OP_WAIT_UINT,
                expected.into(),
                std::ptr::without_provenance_mut(size_of::<libc::_umtx_time>()),
                (&raw mut *time).cast(),
            )
        };
    }

    pub(super) fn wake_all(word: &AtomicU32) {
        let (none, all) = (std::ptr::null_mut(), libc::c_int::MAX as libc::c_ulong);
        // SAFETY: the address is only a name here; the kernel does not touch the word.
        unsafe { libc::_umtx_op(word.as_ptr().cast(), libc::UMTX_OP_WAKE, all, none, none) };
    }
}

#[cfg(any(target_os = "macos", target_os = "ios"))]
mod system {
    use std::ffi::{CStr, c_int, c_void};
    use std::mem::transmute_copy;

    use super::{AtomicU32, Duration, polling};
    use crate::fork::Once;
    use crate::sys::Errno;

    type WaitOnAddress = unsafe extern "C" fn(*mut c_void, u64, usize, u32, u32, u64) -> c_int;
    type WakeByAddress = unsafe extern "C" fn(*mut c_void, usize, u32) -> c_int;
    type UlockWait = unsafe extern "C" fn(u32, *mut c_void, u64, u32) -> c_int;
    type UlockWake = unsafe extern "C" fn(u32, *mut c_void, u64) -> c_int;

    /// `UL_COMPARE_AND_WAIT_SHARED`.
    const COMPARE_AND_WAIT_SHARED: u32 = 3;
    /// `ULF_WAKE_ALL`.
    const WAKE_ALL: u32 = 0x100;

    /// What this system offers.
    enum Calls {
        Address(WaitOnAddress, WakeByAddress),
        Ulock(UlockWait, UlockWake),
        None,
    }

    /// A function of the C library of type `F`, if this system's has it.
    ///
    /// # Safety
    ///
    /// `F` must be the type of a pointer to the function of that name.
    unsafe fn find<F: Copy>(name: &CStr) -> Option<F> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        // SAFETY: a C string; the handle means everything that is loaded.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        // SAFETY: a pointer to a function, of the type that the caller promises, and of the
        // same size.
        (!found.is_null()).then(|| unsafe { transmute_copy::<*mut c_void, F>(&found) })
    }

    fn calls() -> &'static Calls {
        static CALLS: Once<Calls> = Once::new();
        CALLS.get_or_make(|| {
            // SAFETY: the type is that of <os/os_sync_wait_on_address.h>.
            let wait = unsafe { find::<WaitOnAddress>(c"os_sync_wait_on_address_with_timeout") };
            // SAFETY: as above.
            let wake = unsafe { find::<WakeByAddress>(c"os_sync_wake_by_address_all") };
            if let (Some(wait), Some(wake)) = (wait, wake) {
                return Calls::Address(wait, wake);
            }
            // SAFETY: the type is that of xnu's bsd/sys/ulock.h.
            let wait = unsafe { find::<UlockWait>(c"__ulock_wait") };
            // SAFETY: as above.
            let wake = unsafe { find::<UlockWake>(c"__ulock_wake") };
            match (wait, wake) {
                (Some(wait), Some(wake)) => Calls::Ulock(wait, wake),
                _ => Calls::None,
            }
        })
    }

    pub(super) fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
        let (at, value) = (word.as_ptr().cast::<c_void>(), u64::from(expected));
        let result = match calls() {
            Calls::Address(wait, _) => {
                let nanoseconds = timeout.as_nanos() as u64;
                let (flags, clock) =
                    (libc::OS_SYNC_WAIT_ON_ADDRESS_SHARED, libc::OS_CLOCK_MACH_ABSOLUTE_TIME);
                // SAFETY: the word is mapped, aligned and of this size for the length of the
                // borrow; the kernel only reads it. The timeout is not zero.
                unsafe { wait(at, value, size_of::<u32>(), flags, clock, nanoseconds) }
            }
            Calls::Ulock(wait, _) => {
                // Zero would be for ever.
                let microseconds = (timeout.as_micros() as u32).max(1);
                // SAFETY: as above.
                unsafe { wait(COMPARE_AND_WAIT_SHARED, at, value, microseconds) }
            }
            Calls::None => return polling::wait(word, expected, timeout),
        };
        // A kernel that doesn't know the operation, or not for this memory, has not waited.
        if result < 0 && matches!(Errno::last(), Errno(libc::EINVAL | libc::ENOTSUP | libc::ENOSYS))
        {
            polling::wait(word, expected, timeout);
        }
    }

    pub(super) fn wake_all(word: &AtomicU32) {
        let at = word.as_ptr().cast::<c_void>();
        match calls() {
            Calls::Address(_, wake) => {
                // SAFETY: the address is only a name here; the kernel does not touch the word.
                unsafe { wake(at, size_of::<u32>(), libc::OS_SYNC_WAKE_BY_ADDRESS_SHARED) };
            }
            Calls::Ulock(_, wake) => {
                // SAFETY: as above.
                unsafe { wake(COMPARE_AND_WAIT_SHARED | WAKE_ALL, at, 0) };
            }
            Calls::None => {}
        }
    }
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "freebsd",
    target_os = "macos",
    target_os = "ios"
)))]
mod system {
    use super::AtomicU32;
    pub(super) use super::polling::wait;

    pub(super) fn wake_all(_word: &AtomicU32) {}
}

#[cfg(any(test, not(any(target_os = "linux", target_os = "freebsd"))))]
mod polling {
    use super::{AtomicU32, Duration};

    /// Looks at the word in growing intervals of at most a millisecond.
    pub(super) fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
        let start = crate::clock::monotonic();
        let mut pause = Duration::from_micros(20);
        while word.load(dsm_core::sync::Ordering::Acquire) == expected {
            let Some(left) = timeout.checked_sub(crate::clock::monotonic().saturating_sub(start))
            else {
                return;
            };
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(1));
        }
    }

    /// What is used elsewhere is at least run here.
    #[cfg(test)]
    #[test]
    fn polling_ends_by_time_and_by_change() {
        let word = AtomicU32::new(1);
        wait(&word, 0, Duration::from_secs(60));
        wait(&word, 1, Duration::from_millis(3));
        std::thread::scope(|scope| {
            scope.spawn(|| wait(&word, 1, Duration::from_secs(60)));
            word.store(2, dsm_core::sync::Ordering::Release);
        });
    }
}
