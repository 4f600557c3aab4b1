//! The locks among threads, without a namespace.
#![cfg(not(loom))]

mod participant;
mod rw;
mod spin;
mod support;
