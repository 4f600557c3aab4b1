//! Random bits from the system.

use std::sync::atomic::{AtomicU64, Ordering};

use dsm_core::env::Entropy;

use crate::liveness::Posix;
use crate::name::hash;
use crate::sys;

impl Entropy for Posix {
    /// `getentropy`: some hundred nanoseconds.
    ///
    /// On a system that refuses it (a sandbox, a kernel of old) the bits are mixed from the time,
    /// the process, and a counter: not secret, but different between processes and starts.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0u8; 8];
        // SAFETY: `bytes` is writable for its length, which is below the limit of 256.
        if unsafe { libc::getentropy(bytes.as_mut_ptr().cast(), bytes.len()) } == 0 {
            return u64::from_ne_bytes(bytes);
        }
        improvised()
    }
}

fn improvised() -> u64 {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let time = crate::clock::monotonic().as_nanos() as u64;
    let wall = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64);
    let parts = [
        time,
        wall,
        u64::from(sys::process_id()),
        COUNTER.fetch_add(1, Ordering::Relaxed),
        (&raw const ANCHOR).addr() as u64,
    ];
    let mut bytes = [0u8; 40];
    for (slot, part) in bytes.chunks_exact_mut(8).zip(parts) {
        slot.copy_from_slice(&part.to_ne_bytes());
    }
    hash(&bytes)
}

/// Its address differs between starts where addresses are randomised.
static ANCHOR: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn improvised_bits_differ() {
        let mut seen: Vec<u64> = (0..1000).map(|_| improvised()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }
}
