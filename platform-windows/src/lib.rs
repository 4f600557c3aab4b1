//! Windows backends for [`dsm_core`]: the rooms are laid out, the implementations are not there yet.
//!
//! This crate compiles everywhere and exports no provider: a type that exists implements what it
//! claims to. Each module below has the name of the module of `platform-posix` that does the same job,
//! and says what it will hold and by which means of Windows.
//!
//! Until then `dsm-registry` on Windows takes a provider through its builder, and answers
//! [`Unsupported`](dsm_core::error::ErrorKind::Unsupported) if it is given none.

pub mod clock;
pub mod entropy;
pub mod error;
pub mod file;
pub mod fork;
pub mod liveness;
pub mod memfd;
pub mod name;
pub mod options;
pub mod root;
pub mod shm;
pub mod sysv;
pub mod wait;
