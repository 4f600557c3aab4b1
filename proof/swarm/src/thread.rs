//! A thread of the swarm, as its operations know it.

use std::cell::RefCell;
use std::sync::RwLockReadGuard;
use std::sync::atomic::Ordering::Release;

use crate::board::{Board, Tenant};
use crate::cores::CoreThread;
use crate::life::Life;
use crate::plan::{Random, Raw};
use crate::world::World;

pub(crate) struct Thread {
    pub(crate) life: &'static Life,
    pub(crate) tenant: Tenant,
    pub(crate) random: Random,
    pub(crate) core: CoreThread,
    /// Open while the thread is inside a call that may end it; see `nursery`.
    pub(crate) gate: RefCell<Option<RwLockReadGuard<'static, ()>>>,
    /// How many it had: each is another kind of child.
    pub(crate) children: usize,
}

impl Thread {
    /// Takes a seat whose books are settled.
    pub(crate) fn sit(life: &'static Life, seat: usize) -> Result<Self, String> {
        let tenant = life.board.sit(seat);
        let random = life.board.random(tenant);
        let core = life.world.core.join()?;
        let children = tenant.generation as usize;
        Ok(Self { life, tenant, random, core, gate: RefCell::default(), children })
    }

    pub(crate) fn board(&self) -> &'static Board {
        self.life.board
    }

    pub(crate) fn world(&self) -> &'static World {
        &self.life.world
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

    /// Ends the thread's participation in order.
    pub(crate) fn part(self) -> Result<(), String> {
        self.core.part()
    }
}
