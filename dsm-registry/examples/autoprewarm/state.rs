//! What the worker, its loaders and the commands know of each other: one shared struct.
//!
//! Found by name. Whoever comes first creates it, all zeros, which means: nobody works, nothing
//! was loaded yet. All fields are atomic words. Who writes which:
//!
//! | field | written by |
//! |---|---|
//! | `worker_pid`, `dumper_pid` | whoever has the claim |
//! | `loader_pid` | the worker, for people to read |
//! | `records`, `database`, `stop` | the worker, before it starts a loader |
//! | `progress` | the worker, then the one loader that it waits for |
//! | `phase` | the worker |
//! | `stop_requests` | the `stop` command |

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use dsm_registry::AtomicDsaPointer;
use zerocopy::{FromBytes, KnownLayout};

/// The shared struct.
#[derive(FromBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct State {
    /// Where the list of blocks lies that is being loaded, in the area of records.
    pub(crate) records: AtomicDsaPointer,
    /// The next record to be loaded, above the count of blocks that were: one word, so that a
    /// loader that is killed leaves both right.
    progress: AtomicU64,
    /// The record at which the loader of the current database stops.
    pub(crate) stop: AtomicU64,
    /// Bumped by who wants the worker to end.
    pub(crate) stop_requests: AtomicU64,
    /// The database that is being loaded.
    pub(crate) database: AtomicU32,
    phase: AtomicU32,
    /// Who runs the worker.
    pub(crate) worker_pid: AtomicU32,
    /// Who uses the dump file.
    pub(crate) dumper_pid: AtomicU32,
    /// Who loads; zero: nobody.
    pub(crate) loader_pid: AtomicU32,
    _unused: AtomicU32,
}

/// How far the loading has come since the pool was created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Not begun.
    Cold,
    /// Begun, or interrupted: the pool holds less than the dump file, which must not be replaced.
    Loading,
    /// Done.
    Loaded,
}

impl State {
    /// The phase.
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Cold,
            1 => Phase::Loading,
            _ => Phase::Loaded,
        }
    }

    /// The next record to be loaded, and how many blocks of those before were.
    pub(crate) fn progress(&self) -> (u32, u32) {
        let word = self.progress.load(Ordering::Acquire);
        ((word >> 32) as u32, word as u32)
    }

    /// Stores both.
    pub(crate) fn set_progress(&self, start: u32, prewarmed: u32) {
        self.progress.store(u64::from(start) << 32 | u64::from(prewarmed), Ordering::Release);
    }

    /// Changes the phase.
    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u32, Ordering::Release);
    }
}
