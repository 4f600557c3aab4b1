//! Waiting on a word in shared memory: futexes on Linux, polling elsewhere.
//!
//! The futex calls are the ones *without* `FUTEX_PRIVATE_FLAG`: the kernel then finds the waiters
//! by the page behind the address, so that processes that map it at different addresses meet.
//! Every wait is bounded by its caller, so a wake that got lost with a dead process, or that the
//! polling fallback has no way to send, costs time and nothing else.

use std::time::Duration;

use dsm_core::env::Wait;
use dsm_core::sync::AtomicU32;

use crate::liveness::Posix;

impl Wait for Posix {
    #[doc(alias = "FUTEX_WAIT")]
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Duration) {
        wait(word, expected, timeout);
    }

    #[doc(alias = "FUTEX_WAKE")]
    fn wake_all(&self, word: &AtomicU32) {
        wake_all(word);
    }
}

#[cfg(target_os = "linux")]
fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    let mut time = std::mem::MaybeUninit::<libc::timespec>::zeroed();
    // Beyond a year is as good as for ever: the caller looks around and comes back.
    let timeout = timeout.min(Duration::from_secs(365 * 24 * 3600));
    // SAFETY: zeros are a valid timespec.
    let time = unsafe { time.assume_init_mut() };
    time.tv_sec = timeout.as_secs() as libc::time_t;
    time.tv_nsec = timeout.subsec_nanos() as _;
    // Whatever it returns (woken, changed, timed out, interrupted), the caller looks at the word.
    // SAFETY: the word is mapped and aligned for the length of the borrow; the timeout is valid
    // during the call. The kernel only reads the word.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            std::ptr::from_ref(word),
            libc::FUTEX_WAIT,
            expected,
            std::ptr::from_ref(time),
        )
    };
}

#[cfg(target_os = "linux")]
fn wake_all(word: &AtomicU32) {
    // SAFETY: the address is only a name here; the kernel does not touch the word.
    unsafe {
        libc::syscall(libc::SYS_futex, std::ptr::from_ref(word), libc::FUTEX_WAKE, libc::c_int::MAX)
    };
}

/// Looks at the word in growing intervals of at most a millisecond.
#[cfg(not(target_os = "linux"))]
fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
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

#[cfg(not(target_os = "linux"))]
fn wake_all(_word: &AtomicU32) {}
