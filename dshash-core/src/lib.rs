#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

mod change;
mod check;
mod create;
mod entries;
mod entry;
pub mod error;
mod follow;
mod grow;
mod guard;
pub mod hash;
mod held;
pub mod keys;
mod kind;
mod layout;
mod locked;
mod partition;
mod peek;
mod probe;
mod racy_copy;
pub mod raw;
mod read;
mod recover;
mod scan;
mod sequence;
mod step;
pub mod store;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod view;
mod walk;
mod words;

pub use check::{Report, Stats};
pub use entry::{Entry, OccupiedEntry, VacantEntry};
pub use error::{Error, MemoryError, Parameter};
pub use guard::{ExclusiveGuard, SharedGuard};
pub use layout::MAX_PARTITIONS;
pub use peek::Peeked;
pub use scan::{Scan, ScanEntry, ScanEntryMut, ScanMut};
pub use store::{Allocator, Store, Unresolved};
pub use table::{DEFAULT_PARTITIONS, Key, Params, Session, Snapshot, Table, TableHandle, Value};
pub use words::MAX_SEGMENT_SIZE;
