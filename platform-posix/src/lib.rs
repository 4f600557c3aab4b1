//! POSIX backends for [`dsm_core`]: where segments come from, and who is alive.
//!
//! | provider | memory | how another process finds it |
//! |---|---|---|
//! | [`Shm`] | `shm_open` | by name, in `/dev/shm` on Linux |
//! | [`File`] | files of a directory | by name, in that directory |
//! | [`Memfd`] | `memfd_create` (Linux) | by descriptors passed beforehand |
//! | [`SysV`] | `shmget` | by key; the control object is a file |
//!
//! Each gives segments ([`SegmentProvider`](dsm_core::provider::SegmentProvider)), the control
//! object of a namespace ([`Root`](dsm_core::provider::Root)) and an environment ([`Posix`])
//! that waits, tells the time, draws random numbers, and proves who is dead.
#![cfg(unix)]

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod clock;
mod descriptor;
mod entropy;
mod error;
mod file;
pub mod fork;
mod limits;
mod liveness;
mod lock;
#[cfg(target_os = "linux")]
mod memfd;
mod name;
mod object;
mod options;
mod process;
mod provide;
mod root;
mod shm;
mod sys;
mod sysv;
mod wait;
mod watch;

pub use file::File;
pub use liveness::Posix;
#[cfg(target_os = "linux")]
pub use memfd::Memfd;
pub use options::{Numa, Options, Owners};
pub use root::PosixElection;
pub use shm::Shm;
pub use sysv::SysV;
pub use watch::{Interrupt, Watch, Watched};
#[doc(inline)]
pub use {error::Error, name::NamespaceName};
