//! A process of the swarm: threads that work, one that replaces those that ended raw.
//!
//! A thread settles what its seat's last tenant left, then works by its plan. One of its operations
//! is a fork, whose child is a process of the swarm in its turn (see `nursery`).

use std::sync::PoisonError;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use clap::Args;
use dsm_core::lock::{Acquired, Patience};
use dsm_registry::WriteGuard;

use crate::board::{Board, LOCKS, PROCESSES, now};
use crate::life::{Life, exit, fail, seats};
use crate::nursery::{forget_unborn, fork};
use crate::plan::{Child, Event, Kind, Raw};
use crate::thread::Thread;
use crate::work;
use crate::world::Hot;
use testkit::system::forever as leak;
use testkit::tool::{ensure, text};

/// What a process of the swarm is told by the supervisor that starts it.
#[derive(Args)]
pub struct Orders {
    namespace: String,
    board: String,
    process: usize,
}

/// What the command `worker` does; never returns unless it fails.
pub fn obey(orders: &Orders) -> Result<bool, String> {
    let board = Board::open(&orders.board)?;
    forget_unborn(board, orders.process);
    live(board, &orders.namespace, orders.process, u64::MAX)
}

/// Works with all threads; from `until` on, the process kills itself.
fn live(board: &'static Board, name: &str, process: usize, until: u64) -> Result<bool, String> {
    let life = leak(Life::start(board, name, process)?);
    for seat in life.seats() {
        // Of a thread of the last life.
        board.seats[seat].ended.store(0, Release);
        spawn(life, seat)?;
    }
    loop {
        std::thread::sleep(Duration::from_millis(1));
        if board.is_abandoned() {
            exit(1);
        }
        for seat in life.seats() {
            let ended = board.seats[seat].ended.load(Acquire);
            if ended != 0 && is_gone(ended) {
                board.seats[seat].ended.store(0, Release);
                spawn(life, seat)?;
            }
        }
        if now() > until {
            life.end();
        }
    }
}

/// Whether a thread of this process has ended.
fn is_gone(tid: u64) -> bool {
    let process = std::process::id() as libc::pid_t;
    // SAFETY: signal 0 is never delivered.
    unsafe { libc::syscall(libc::SYS_tgkill, process, tid as libc::pid_t, 0) != 0 }
}

fn spawn(life: &'static Life, seat: usize) -> Result<(), String> {
    let builder = std::thread::Builder::new().stack_size(1 << 20);
    let worked = move || fail(life.board, start(life, seat).and_then(|mut t| t.work()));
    builder.spawn(worked).map(|_| ()).map_err(text)
}

/// A thread in the place of one that is dead.
fn start(life: &'static Life, seat: usize) -> Result<Thread, String> {
    let gate = life.enter();
    work::settle(life.board, &life.world, seat)?;
    let thread = Thread::sit(life, seat)?;
    drop(gate);
    Ok(thread)
}

impl Thread {
    /// Works for ever.
    fn work(&mut self) -> Result<(), String> {
        // Each tenant ends in a way of its own, if it lives long enough.
        let raw = Raw::ALL[self.tenant.generation as usize % Raw::ALL.len()];
        loop {
            self.perform_any()?;
            if self.random.one_in(100) {
                *self.gate.borrow_mut() = Some(self.life.enter());
                work::vanish(self, raw)?;
                *self.gate.borrow_mut() = None;
            }
        }
    }

    /// Does some of any kind.
    fn perform_any(&mut self) -> Result<(), String> {
        let kind = Kind::ALL[self.random.below(Kind::ALL.len() as u64) as usize];
        if self.board().is_chosen(kind) { self.perform(kind) } else { Ok(()) }
    }

    /// Does some of a kind.
    fn perform(&mut self, kind: Kind) -> Result<(), String> {
        if kind == Kind::Fork {
            return if self.random.one_in(8) { self.fork() } else { Ok(()) };
        }
        let gate = self.life.enter();
        for _ in 0..work::batch(kind) {
            let asked = self.board().begin(self.tenant.seat, kind);
            work::perform(self, kind, asked).map_err(|e| format!("{}: {e}", kind.text()))?;
            self.board().end(self.tenant.seat, kind, asked);
        }
        drop(gate);
        Ok(())
    }

    /// Forks, holding a lock that nobody else wants, one that everybody wants, and an entry.
    fn fork(&mut self) -> Result<(), String> {
        let gate = self.life.gate.write().unwrap_or_else(PoisonError::into_inner);
        let (board, seat) = (self.board(), self.tenant.seat);
        let asked = board.begin(seat, Kind::Fork);
        let mode = Child::ALL[self.children % Child::ALL.len()];
        self.children += 1;
        let core = self.core;
        let lock = core.core.private_lock(self.life.process);
        let mut own = lock.exclusive(core.participant, Patience::Forever).map_err(text)?;
        if own.acquired() == Acquired::FromDead {
            board.count(Event::LocksFromDead);
            own.mark_recovered();
        }
        let index = self.random.below(LOCKS as u64) as usize;
        let shared = work::lock_shared(self, index, Patience::Forever, asked)?;
        let guards = (shared, work::hot_guard(self, asked)?);
        let release = |(_shared, mut hot): (_, WriteGuard<'_, u64, Hot>)| hot[2] = 0;
        fork(self.life, self.tenant, &mut self.random, mode, guards, release, be)?;
        ensure(lock.owner() == core.participant.id(), || "a child released a lock".into())?;
        drop(own);
        board.end(seat, Kind::Fork, asked);
        drop(gate);
        Ok(())
    }
}

/// The child's life, as a process of its own.
fn be(parent: &Life, mode: Child, duration: u64) -> Result<(), String> {
    let (board, name) = (parent.board, &parent.world.name);
    let process = parent.process + PROCESSES;
    match mode {
        Child::Exits => {}
        Child::Works => drop(live(board, name, process, u64::MAX)?),
        Child::Dies => drop(live(board, name, process, now() + duration)?),
        Child::Leaves => {
            let life = leak(Life::start(board, name, process)?);
            let mut thread = start(life, seats(process).start)?;
            for _ in 0..40 {
                thread.perform_any()?;
            }
            thread.part()?;
            // SAFETY: nobody else uses this life's world, and its copy is not used any more.
            unsafe { std::ptr::read(&raw const life.world) }.leave()?;
            exit(0);
        }
    }
    Ok(())
}
