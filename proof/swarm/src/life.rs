//! One life of a process of the swarm: what all its threads share, and how it ends.

use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use dsm_registry::Reaper;

use crate::board::{Board, PROCESSES, THREADS};
use crate::plan::Event;
use crate::world::World;
use testkit::tool::text;

/// One life of a process.
pub(crate) struct Life {
    pub(crate) board: &'static Board,
    pub(crate) process: usize,
    pub(crate) world: World,
    pub(crate) gate: RwLock<()>,
    _reaper: Option<Reaper>,
}

impl Life {
    pub(crate) fn start(
        board: &'static Board,
        namespace: &str,
        process: usize,
    ) -> Result<Self, String> {
        let (world, _) = World::open(namespace)?;
        let reaps = board.reapers.load(Relaxed) != 0 && process < PROCESSES;
        let reaper = reaps.then(|| world.registry.spawn_reaper()).transpose().map_err(text)?;
        Ok(Self { board, process, world, gate: RwLock::new(()), _reaper: reaper })
    }

    pub(crate) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn seats(&self) -> std::ops::Range<usize> {
        seats(self.process)
    }

    /// Kills the process from within, whatever its threads are doing.
    pub(crate) fn end(&self) -> ! {
        self.board.count(Event::Suicides);
        self.seats().for_each(|seat| self.board.dies(seat));
        self.board.ending[self.process].store(1, Release);
        loop {
            // SAFETY: no preconditions.
            unsafe { libc::raise(libc::SIGKILL) };
        }
    }
}

/// The seats of a process's threads.
pub(crate) fn seats(process: usize) -> std::ops::Range<usize> {
    process * THREADS..(process + 1) * THREADS
}

/// Ends the process, after a complaint; also if there is none, as its threads are to work for ever.
pub(crate) fn fail(board: &Board, done: Result<(), String>) -> ! {
    let error = done.err().unwrap_or_else(|| "a thread ended".into());
    testkit::tool::complain("crash", &format!("process {}: {error}", std::process::id()));
    board.failed.store(1, Release);
    exit(2)
}

pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status) }
}
