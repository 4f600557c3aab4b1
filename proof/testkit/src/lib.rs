//! What the tests of several crates share, so that the same tests run on every system.
//!
//! | module | what it holds |
//! |---|---|
//! | [`environment`] | an environment around another, to see or change what the cores ask of it |
//! | [`lock`] | a lock of a kind that is not the library's |
//! | `memory` | bytes and words of a mapping |
//! | [`process`] | the test binary once more, as a peer with a role; killed, or let go |
//! | [`program`] | other programs, in bounded time |
//! | [`proof`] | proofs of life, from process to process |
//! | [`system`] | the system's own backend: namespaces on it, and what is left of them |
//! | [`tool`] | what programs that test something say, and how they check |
//!
//! Everything that differs between systems stays in here: what a kill is, where objects lie.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

pub mod environment;
pub mod lock;
// Models have atomics of their own, which no bytes of a mapping can be.
#[cfg(not(any(loom, shuttle)))]
pub mod memory;
pub mod process;
pub mod program;
pub mod proof;
pub mod system;
pub mod tool;

/// How long anything may take before a test gives up.
pub const BOUND: Duration = Duration::from_secs(60);

/// A namespace's name that no other test has, nor had lately: process ids alone are used again soon
/// (Wine has the same in every run). `label` is cut off at 32 bytes.
#[must_use]
pub fn name(label: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let label = &label[..label.len().min(32)];
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (pid, time) = (std::process::id(), now.as_millis() & 0xff_ffff);
    format!("test-{label}-{pid}-{time:x}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// How often to repeat something that is random or timed: `full` times, or the share of it that the
/// environment variable `DSM_TEST_SHARE` asks for (10: a tenth), but at least once.
///
/// For places where a process takes a hundred times as long to start as on Linux: Wine.
///
/// # Panics
///
/// If the variable is no number above zero.
#[must_use]
pub fn rounds(full: u64) -> u64 {
    let share = std::env::var("DSM_TEST_SHARE").map_or(1, |share| share.parse().unwrap());
    (full / share).max(1)
}
