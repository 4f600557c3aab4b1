//! Windows backends for [`dsm_core`]: where segments come from, and who is alive.
//!
//! | provider | memory | how another process finds it |
//! |---|---|---|
//! | `Shm` | temporary files (the default), or sections of the page file | by name |
//! | `File` | files of a directory | by name, in that directory |
//!
//! Each gives segments ([`SegmentProvider`](dsm_core::provider::SegmentProvider)), the control
//! object of a namespace ([`Root`](dsm_core::provider::Root)) and an environment (`Windows`)
//! that waits, tells the time, draws random numbers, and proves who is dead.
//!
//! Elsewhere than on Windows this crate is empty. Modules have the names of those of
//! `platform-posix` that do the same job.
#![cfg_attr(
    windows,
    doc = "

# Memory of files, memory of the page file

A section of the page file lives as long as somebody has a handle to it or a view of it. With
[`Backing::PageFile`] a process that is terminated therefore takes along every segment that nobody else had
attached: an area's newest segment, say, to which entries of a table already point. Whoever follows such a
pointer gets an error ([`NotFound`](dsm_core::error::ErrorKind::NotFound)), and the values are lost. A namespace
of temporary files ([`Backing::Files`], the default) keeps the promises of `dsm-core`: what a
killed process has written stays, whoever else looked at it. Such files are hardly ever written to the disk
(`FILE_ATTRIBUTE_TEMPORARY`), they are memory with a name."
)]

#[cfg(windows)]
mod clock;
#[cfg(windows)]
mod disk;
#[cfg(windows)]
mod entropy;
#[cfg(windows)]
mod error;
#[cfg(windows)]
mod file;
#[cfg(windows)]
pub mod fork;
#[cfg(windows)]
mod liveness;
#[cfg(windows)]
mod name;
#[cfg(windows)]
mod object;
#[cfg(windows)]
mod options;
#[cfg(windows)]
mod process;
#[cfg(windows)]
mod provide;
#[cfg(windows)]
mod root;
#[cfg(windows)]
mod section;
#[cfg(windows)]
mod security;
#[cfg(windows)]
mod shm;
#[cfg(windows)]
mod sys;
#[cfg(windows)]
mod wait;

#[cfg(windows)]
#[doc(inline)]
pub use {error::Error, name::NamespaceName};
#[cfg(windows)]
pub use {
    file::File,
    liveness::Windows,
    options::{Backing, Options, Owners, Scope},
    root::WindowsElection,
    shm::Shm,
};

/// The README's examples are tests.
#[cfg(all(windows, doctest))]
#[doc = include_str!("../README.md")]
struct Readme;
