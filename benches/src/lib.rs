//! Works that are timed beside peers, shared by the `ratios` program and the groups of criterion.
//!
//! | module | works | peers |
//! |---|---|---|
//! | [`locks`] | a cycle of acquire and release | the C library's process-shared rwlock |
//! | [`segments`] | create, attach, destroy | bare system calls |
//! | [`allocator`] | allocate, free, resolve | mimalloc, the C library's malloc |
//!
//! [`measure`] says how they are timed.

pub mod allocator;
pub mod glibc;
pub mod locks;
pub mod measure;
pub mod ours;
pub mod segments;
pub mod syscalls;

use measure::Work;

/// Every work of every group, in the order in which `ratios` prints them.
#[must_use]
pub fn works() -> Vec<Work> {
    [locks::works(), segments::works(), allocator::works()].into_iter().flatten().collect()
}
