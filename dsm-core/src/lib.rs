//! Shared-memory segments, participants and recoverable locks over abstract platform traits.
#![no_std]

#[cfg(any(test, feature = "heap", loom))]
extern crate std;

mod control;
pub mod detach;
pub mod env;
pub mod error;
pub mod handle;
#[cfg(any(test, feature = "heap", loom))]
pub mod heap;
pub mod inspect;
pub mod lock;
mod main_region;
pub mod namespace;
pub mod participant;
pub mod provider;
mod reap;
pub mod segment;
pub mod sync;
pub mod toc;
