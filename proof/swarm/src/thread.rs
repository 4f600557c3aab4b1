//! A thread of the swarm: settles what the seat's last tenant left, then works by its plan.

use std::cell::RefCell;
use std::sync::PoisonError;
use std::sync::RwLockReadGuard;
use std::sync::atomic::Ordering::Release;

use dsm_core::lock::{Acquired, Patience};
use dsm_registry::WriteGuard;

use crate::board::{Board, LOCKS, Tenant};
use crate::cores::CoreThread;
use crate::plan::{Child, Event, Kind, Random, Raw};
use crate::work;
use crate::worker::{Life, fork};
use crate::world::{Hot, World};
use testkit::tool::{ensure, text};

pub(crate) struct Thread {
    pub(crate) life: &'static Life,
    pub(crate) tenant: Tenant,
    pub(crate) random: Random,
    pub(crate) core: CoreThread,
    /// Open while the thread is inside a call; see `worker`.
    gate: RefCell<Option<RwLockReadGuard<'static, ()>>>,
    children: usize,
}

impl Thread {
    pub(crate) fn start(life: &'static Life, seat: usize) -> Result<Self, String> {
        let gate = life.enter();
        work::settle(life.board, &life.world, seat)?;
        let tenant = life.board.sit(seat);
        let random = life.board.random(tenant);
        let core = life.world.core.join()?;
        drop(gate);
        let children = tenant.generation as usize;
        Ok(Self { life, tenant, random, core, gate: RefCell::default(), children })
    }

    pub(crate) fn board(&self) -> &'static Board {
        self.life.board
    }

    pub(crate) fn world(&self) -> &'static World {
        &self.life.world
    }

    /// Works for ever.
    pub(crate) fn work(&mut self) -> Result<(), String> {
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
    pub(crate) fn perform_any(&mut self) -> Result<(), String> {
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

    /// Ends the thread without its destructors, holding whatever it holds; every third time the
    /// whole process.
    pub(crate) fn end_raw(&self, raw: Raw) -> ! {
        if self.tenant.generation.is_multiple_of(3) {
            self.life.end();
        }
        self.board().count_raw(raw);
        self.board().dies(self.tenant.seat);
        drop(self.gate.borrow_mut().take());
        // SAFETY: no preconditions.
        let tid = unsafe { libc::syscall(libc::SYS_gettid) };
        self.board().seats[self.tenant.seat].ended.store(tid as u64, Release);
        // SAFETY: ends this thread alone; its stack stays mapped until the process ends.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
        unreachable!("a thread that has ended");
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
        fork(self.life, self.tenant, &mut self.random, mode, guards, release)?;
        ensure(lock.owner() == core.participant.id(), || "a child released a lock".into())?;
        drop(own);
        board.end(seat, Kind::Fork, asked);
        drop(gate);
        Ok(())
    }

    /// Ends the thread's participation in order.
    pub(crate) fn part(self) -> Result<(), String> {
        self.core.part()
    }
}
