//! Shared-memory segments, participants and recoverable locks over abstract platform traits.
#![no_std]

#[cfg(any(test, feature = "heap", loom))]
extern crate std;

pub mod env;
pub mod error;
pub mod handle;
pub mod lock;
pub mod namespace;
pub mod participant;
pub mod provider;
pub mod segment;
pub mod sync;
