//! Works that are timed beside peers, shared by the `ratios` program and the groups of criterion.
//!
//! | module | works | peers |
//! |---|---|---|
//! | [`locks`] | a cycle of acquire and release | the C library's process-shared rwlock |
//! | [`segments`] | create, attach, destroy | bare system calls |
//! | [`allocator`] | allocate, free, resolve | mimalloc, the C library's malloc |
//! | [`table`] | insert, find, update, delete | dashmap |
//! | [`registry`] | an attached name looked up again | four lock cycles of the C library |
//!
//! [`measure`] says how they are timed.

pub mod allocator;
pub mod glibc;
pub mod locks;
pub mod measure;
pub mod ours;
pub mod reference;
pub mod registry;
pub mod segments;
pub mod syscalls;
pub mod table;

use measure::Work;

/// Every work of every group, in the order in which `ratios` prints them.
#[must_use]
pub fn works() -> Vec<Work> {
    [locks::works(), segments::works(), registry::works(), allocator::works(), table::works()]
        .into_iter()
        .flatten()
        .collect()
}
