#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

mod area;
mod class;
pub mod error;
mod header;
mod heap;
mod hints;
mod layout;
mod local;
mod memory;
#[cfg(all(test, loom))]
mod model;
mod pages;
mod pointer;
mod racy_scan;
mod slab;
#[cfg(feature = "zerocopy")]
mod typed;

pub use area::{Area, Options, Report, Stats};
pub use error::{Corruption, Error, FreeError};
pub use header::segment_key;
pub use heap::{Flags, Heap, MAX_HUGE_REQUEST, MAX_REQUEST};
pub use hints::HeapLocal;
pub use local::AreaLocal;
pub use pointer::{AtomicDsaPointer, DsaPointer, DsaPtr};
#[cfg(feature = "zerocopy")]
pub use typed::DsaBox;
