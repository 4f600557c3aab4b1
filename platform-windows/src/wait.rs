//! Waits between processes: a pool of named semaphores, chosen by a hash of the address within the segment.
//!
//! `WaitOnAddress` works within one process only. Waits are bounded and may end without a reason,
//! so two words that share a semaphore do no harm.
//!
//! Not implemented yet: [`dsm_core::env::Wait`] has no implementation here.
