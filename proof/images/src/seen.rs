//! The images that were judged already.
//!
//! Different kills often leave the same memory: a recovery that starts over goes through the states
//! of the one before it. Whatever happens after a death is a function of the memory (whoever acts
//! from then on has not acted before, and the clock starts anew), so that of equal images one is
//! judged. All real processes of an exploration share this set of digests: a table in which a
//! digest is entered by one compare-and-swap, by which its finder learns whether he is the first.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Slots; a full table is no error, then equal images are judged again.
const SLOTS: usize = 1 << 23;
/// Slots looked at for one digest.
const PROBES: usize = 64;

/// A set of digests, shared by this process and all that it forks.
pub(crate) struct Seen(&'static [AtomicU64]);

impl Seen {
    pub(crate) fn shared() -> Self {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping wherever the system likes it.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), SLOTS * 8, prot, flags, -1, 0) };
        assert!(at != libc::MAP_FAILED, "no address space for the set of images");
        // SAFETY: mapped until the process ends, aligned to a page, and zeros are a value.
        Self(unsafe { std::slice::from_raw_parts(at.cast(), SLOTS) })
    }

    /// Enters a digest; whether it is the first such.
    pub(crate) fn insert(&self, digest: u64) -> bool {
        let digest = digest.max(1);
        for probe in 0..PROBES {
            let slot = &self.0[(digest as usize).wrapping_add(probe) % SLOTS];
            match slot.compare_exchange(0, digest, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(known) if known == digest => return false,
                Err(_) => {}
            }
        }
        true
    }
}
