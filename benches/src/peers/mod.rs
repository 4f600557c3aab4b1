//! Those we are compared with.

pub mod dashmap;
pub mod heaps;
pub mod rwlock;
pub mod syscalls;
