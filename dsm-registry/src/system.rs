//! The backends of this system, by names that are the same on all of them: for programs that are
//! built for several.
//!
//! | type | on Unix |
//! |---|---|
//! | [`SharedMemory`], the default | POSIX shared memory |
//! | [`Directory`] | files of a directory, mapped |

#[cfg(unix)]
pub use crate::posix::{Directory, SharedMemory};
