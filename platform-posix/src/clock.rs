//! Time: the system's monotonic clock.

use std::mem::MaybeUninit;
use std::time::Duration;

use dsm_core::env::Clock;

use crate::liveness::Posix;

impl Clock for Posix {
    /// `CLOCK_MONOTONIC`: agrees between the processes of a machine (of a time namespace).
    fn now(&self) -> Duration {
        monotonic()
    }
}

/// Time since some moment before the system's start.
pub(crate) fn monotonic() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: `time` is writable; the clock exists on every supported system.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()) };
    // SAFETY: filled by the call, and valid as zeros.
    let time = unsafe { time.assume_init() };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
