//! Random bits, where the system gives none.

use core::time::Duration;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::name::hash;

/// Bits mixed from the time (`now` of a clock that goes forward, and the wall clock's), the
/// process, a counter, and an address: not secret, but different between processes and starts.
pub fn improvised(now: Duration) -> u64 {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    /// Its address differs between starts where addresses are randomised.
    static ANCHOR: u8 = 0;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let parts = [
        now.as_nanos() as u64,
        wall.as_nanos() as u64,
        u64::from(std::process::id()),
        COUNTER.fetch_add(1, Ordering::Relaxed),
        (&raw const ANCHOR).addr() as u64,
    ];
    let mut bytes = [0u8; 40];
    for (slot, part) in bytes.chunks_exact_mut(8).zip(parts) {
        slot.copy_from_slice(&part.to_ne_bytes());
    }
    hash(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn improvised_bits_differ() {
        let mut seen: Vec<u64> = (0..1000).map(|_| improvised(Duration::ZERO)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }
}
