//! Random bits from the system.

use std::sync::atomic::{AtomicU64, Ordering};

use dsm_core::env::Entropy;
use windows_sys::Win32::Security::Authentication::Identity::RtlGenRandom;

use crate::liveness::Windows;
use crate::name::hash;

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
    improvised()
}

fn improvised() -> u64 {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let time = crate::clock::monotonic().as_nanos() as u64;
    let wall = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64);
    let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
    let parts = [time, wall, u64::from(std::process::id()), counter];
    let mut bytes = [0u8; 32];
    for (slot, part) in bytes.chunks_exact_mut(8).zip(parts) {
        slot.copy_from_slice(&part.to_ne_bytes());
    }
    hash(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_differ() {
        for draw in [random, improvised] {
            let mut seen: Vec<u64> = (0..1000).map(|_| draw()).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 1000);
        }
    }
}
