//! What the backends of [`dsm_core`] for different systems have in common.
//!
//! A platform crate says what a system calls things and how it is asked; what that doesn't depend
//! on is here: which names a namespace may have ([`name`]), what an error says ([`error`]), what is
//! refused in the same words everywhere ([`refusal`]), address ranges of what is gone ([`blanks`]),
//! and random bits for want of better ones ([`entropy`]). Nothing here calls the system.
#![forbid(unsafe_code)]

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod blanks;
pub mod entropy;
pub mod error;
pub mod name;
pub mod refusal;

pub use error::{Error, SystemCode};
pub use name::NamespaceName;
