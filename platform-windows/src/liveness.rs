//! Proofs of death: a process handle that is signalled, and the creation time against reuse of
//! ids; the same for threads.
//!
//! File locks (`LockFileEx`) are no proof: when the system releases those of a dead process is unspecified.
//!
//! Not implemented yet: [`dsm_core::env::Liveness`] has no implementation here.
