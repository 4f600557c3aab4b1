//! The locks among threads, without a namespace.
#![cfg(all(any(unix, windows), not(any(loom, shuttle))))]

mod panics;
mod participant;
mod rw;
mod spin;
mod support;
