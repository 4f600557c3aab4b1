//! Random bits: `ProcessPrng`, which never fails.
//!
//! Not implemented yet: [`dsm_core::env::Entropy`] has no implementation here.
