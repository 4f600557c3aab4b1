#![cfg_attr(doctest, doc = include_str!("../README.md"))]
//! Named segments, areas and hash tables in shared memory: every process that asks for a name gets
//! the same thing, whoever comes first creates it, and `kill -9` of any of them harms nobody.
//!
//! ```
//! use dsm_registry::Registry;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let demo = &format!("doc-hello-{}", std::process::id());
//! let reg = Registry::open(demo)?;
//! let hits = reg.hash::<u64, u64>("hits")?; // get or create; the same call in every process
//! *hits.entry(&1)?.or_insert(0)? += 1; // one partition locked while the guard lives
//! assert_eq!(hits.get(&1)?, Some(1));
//! # Ok(())
//! # }
//! ```
//!
//! | call | what it gives |
//! |---|---|
//! | [`Registry::hash`] | a [`HashTable`] from keys to values |
//! | [`Registry::segment`] | one value, a [`Segment`], that derefs to `&T` |
//! | [`Registry::segment_bytes`] | raw [`Bytes`] |
//! | [`Registry::area`] | an [`Area`] to allocate from, with pointers ([`DsaPtr`]) that mean the same everywhere |
//!
//! # What can lie in shared memory
//!
//! Plain data, told by `zerocopy`'s traits: integers, arrays, structs of them, integer atomics.
//! References, `Box`, `String` and `Cell` don't compile. See [`Plain`], [`Key`], [`Snapshot`],
//! [`Object`].
//!
//! # Who initialises
//!
//! Exactly one process runs the initialiser of a segment, on zeroed memory that nobody else sees,
//! and no lock is held meanwhile. If it returns an error, panics, or is killed, the next caller
//! initialises. Initialisers may ask for other names; asking for one's own name, or for each
//! other's, is an error and not a deadlock.
//!
//! # When a process dies
//!
//! What it held is released, by the next one who wants it; what it had half done to tables and
//! areas is completed or undone. A value that it was changing through an exclusive guard is
//! *poisoned*: every access reports [`ErrorKind::Poisoned`] until somebody has looked at it and
//! repaired it ([`HashTable::poisoned`]). A panic that unwinds through such a guard does the same.
//!
//! # When a call fails
//!
//! [`Error`] is a sentence that says what failed, why, and what to do next; `fn main() ->
//! Result<(), Box<dyn Error>>` prints it. [`Error::kind`] is for programs, and most ask
//! [`is_full`](Error::is_full), [`is_poisoned`](Error::is_poisoned),
//! [`is_timeout`](Error::is_timeout) or [`is_would_deadlock`](Error::is_would_deadlock). A call
//! that fails leaves nothing behind.
//!
//! ```
//! # let demo = &format!("doc-fails-{}", std::process::id());
//! # let registry = dsm_registry::Registry::open(demo)?;
//! let hits = registry.hash::<u64, u64>("hits")?;
//! hits.insert(&1, 1)?;
//! let held = hits.find_mut(&1)?;
//! // In this thread, which would wait for itself.
//! let error = hits.insert(&1, 2).unwrap_err();
//! assert!(error.is_would_deadlock());
//! assert_eq!(
//!     format!("{error:?}"),
//!     "this thread holds the lock already; drop its guard before asking again"
//! );
//! # drop(held);
//! # Ok::<(), dsm_registry::Error>(())
//! ```
//!
//! # How long things live
//!
//! A process leaves a namespace when its last handle (of a [`Registry`] or anything looked up
//! through it) is dropped. The last process to leave removes everything, unless the namespace is
//! [persistent](Builder::persistent). What a crash of all leaves behind, the next `open` cleans.
//!
//! # Threads
//!
//! Handles are `Send + Sync` and cheap to clone. Each thread becomes a participant of the namespace
//! when it first uses it, and stops being one when it ends; guards stay on their thread. A guard
//! that is forgotten (`mem::forget`) keeps its lock until its process dies. Two threads that lock
//! two entries in opposite order wait for each other, as with any lock: hold one guard at a time,
//! or take them in one order. The same thread asking for a lock that it holds is told so.
//!
//! # Systems
//!
//! Programs are the same on all of them; [`system`] names the backends of the one that this is
//! built for. On Windows
//!
//! - memory is temporary files of this user, so that what a terminated process has written stays; a
//!   namespace in the page file, an option, loses what nobody else had attached;
//! - a namespace is that of one session, unless the backend's options say otherwise, and of one
//!   user: others are listed there, since there are no modes;
//! - an object is backed by the disk as a whole when it is created: an area takes what its segments
//!   are long, whatever of them is in use;
//! - nobody can be forked, and `kill -9` is `TerminateProcess`.
//!
//! # What safe code can't be protected from
//!
//! - **A peer that scribbles.** Whoever may write the memory may write anything. Headers, handles
//!   and pointers are checked wherever that is cheap, so that most damage becomes an error; values
//!   are whatever bytes say, which for plain data is always *some* value. Objects are created for
//!   this user only (mode 0600); [`Builder::mode`] widens that.
//! - **Fork without exec.** The child must open the namespace anew; handles of its parent say
//!   [`ErrorKind::Forked`]. But a reference into a segment that the child inherited keeps working,
//!   unguarded by the child's own attachment, which knows nothing of its type; a fork while another
//!   thread is inside a call of this crate leaves the child with locks of this process that nobody
//!   will ever release, as it does with the allocator and everything else in a process; and a guard
//!   that both sides hold is released by the parent alone.
//! - **Another process that maps the same objects by other means**, or removes them.
//! - **Type confusion by equal names between processes.** Types of different processes are compared
//!   by name, size and alignment, not field by field; see [`TypeTag`]. Within a process they are
//!   compared as the compiler does.

mod area;
mod bounded;
mod boxed;
mod builder;
mod entry;
mod error;
mod fork;
mod guard;
pub mod inspect;
mod manage;
mod name;
mod names;
mod objects;
mod options;
mod outside;
mod plain;
mod platform;
mod process;
mod reaper;
mod registry;
mod scan;
mod segment;
mod stable;
#[cfg(any(unix, windows))]
pub mod system;
mod table;
mod tag;
mod thread;
mod turn;
mod used;
#[cfg(unix)]
mod watch;

pub use area::{Area, DsaSlice};
pub use bounded::Bounded;
pub use boxed::DsaBox;
pub use builder::Builder;
pub use dsa_core::{
    AtomicDsaPointer, DsaPointer, DsaPtr, Error as AreaError, FreeError, Report as AreaReport,
    Stats as AreaStats,
};
pub use dshash_core::{Error as TableError, Report as TableReport, Stats as TableStats};
pub use dsm_core::error::{ErrorKind as ProviderErrorKind, ProviderFailure, Reason};
pub use dsm_core::lock::LockError;
pub use dsm_core::namespace::Error as NamespaceError;
pub use error::kind::ErrorKind;
pub use error::{BoxError, Description, Error, Kind, Mismatch, Shortage};
pub use guard::{Entry, Poisoned, ReadGuard, Vacant, WriteGuard};
pub use inspect::RegistryInspector;
pub use manage::Listing;
pub use name::MAX_NAME;
pub use options::{AreaOptions, HashOptions, SegmentOptions};
pub use plain::{Key, Object, Plain, Snapshot};
pub use platform::{Connection, Platform};
pub use reaper::{Reaper, Watch, Watched};
pub use registry::Registry;
pub use scan::{Iter, Scan, ScanEntry, ScanMut, Scanned};
pub use segment::{Bytes, Init, Segment};
pub use table::HashTable;
pub use tag::TypeTag;
#[cfg(shuttle)]
pub use thread::forget_members;

/// The workspace's README: what it promises newcomers compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct WorkspaceReadme;
