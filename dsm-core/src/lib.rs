//! Shared-memory segments, participants and recoverable locks over abstract platform traits.
//!
//! Start with [`namespace::Namespace`]. Implementors of a platform start with [`provider`] and
//! [`mod@env`], users of locks alone with [`lock`].
//!
//! Each module opens with an essay: layout, what is truth and what an index of it, who may write
//! what, and what each point of death leaves. The README is a tour with an example.
#![no_std]

#[cfg(any(test, loom, shuttle))]
extern crate std;

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod control;
pub mod deaths;
pub mod detach;
pub mod env;
pub mod error;
mod failure;
pub mod handle;
pub mod inspect;
pub mod lock;
mod main_region;
pub mod namespace;
pub mod participant;
#[doc(hidden)]
pub mod planted;
pub mod provider;
mod reap;
#[cfg(doctest)]
mod refused;
pub mod segment;
mod sentence;
pub mod sync;
pub mod toc;
