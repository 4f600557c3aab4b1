//! Random bits from the system.

use dsm_core::env::Entropy;
use platform_common::entropy::improvised;
use windows_sys::Win32::Security::Authentication::Identity::RtlGenRandom;

use crate::clock::monotonic;
use crate::liveness::Windows;

impl Entropy for Windows {
    /// `RtlGenRandom`, the system's generator.
    ///
    /// Should it fail the bits are mixed from the time, the process, and a counter: not secret, but
    /// different between processes and starts.
    fn next_u64(&self) -> u64 {
        random()
    }
}

pub(crate) fn random() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: `bytes` is writable for its length.
    if unsafe { RtlGenRandom(bytes.as_mut_ptr().cast(), bytes.len() as u32) } {
        return u64::from_ne_bytes(bytes);
    }
    improvised(monotonic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_differ() {
        let mut seen: Vec<u64> = (0..1000).map(|_| random()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }
}
