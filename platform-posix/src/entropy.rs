//! Random bits from the system.

use dsm_core::env::Entropy;
use platform_common::entropy::improvised;

use crate::clock::monotonic;
use crate::liveness::Posix;

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
        improvised(monotonic())
    }
}
