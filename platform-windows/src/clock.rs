//! Time: `QueryPerformanceCounter`.

use std::sync::OnceLock;
use std::time::Duration;

use dsm_core::env::Clock;
use windows_sys::Win32::System::Performance::{QueryPerformanceCounter, QueryPerformanceFrequency};

use crate::liveness::Windows;

impl Clock for Windows {
    /// `QueryPerformanceCounter`: agrees between the processes of a machine.
    fn now(&self) -> Duration {
        monotonic()
    }
}

/// Time since some moment before the first process of the system.
pub(crate) fn monotonic() -> Duration {
    static FREQUENCY: OnceLock<u64> = OnceLock::new();
    let frequency = *FREQUENCY.get_or_init(|| {
        let mut frequency = 0;
        // SAFETY: the variable is writable. The call can't fail since Windows XP.
        unsafe { QueryPerformanceFrequency(&raw mut frequency) };
        u64::try_from(frequency).unwrap_or(0).max(1)
    });
    let mut ticks = 0;
    // SAFETY: the variable is writable. The call can't fail since Windows XP.
    unsafe { QueryPerformanceCounter(&raw mut ticks) };
    let ticks = u64::try_from(ticks).unwrap_or(0);
    let nanoseconds = u128::from(ticks % frequency) * 1_000_000_000 / u128::from(frequency);
    // Below a second, as the remainder was.
    Duration::new(ticks / frequency, nanoseconds as u32)
}
