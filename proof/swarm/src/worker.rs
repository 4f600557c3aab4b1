//! A process of the swarm: threads that work, one that replaces those that ended raw.
//!
//! **Forks.** A process may be forked only while none of its threads is inside a call, or the child
//! inherits locks of the process that nobody will release. So threads work with the
//! [`Life::gate`] open for reading, and who forks has it alone. What a thread of the parent holds in
//! shared memory meanwhile stays the parent's.
//!
//! **The nursery.** A child that goes on to work takes the seats of the process beside its parent's. The
//! word of the nursery says `FORKING` (and which tenant forks) before there is a child; the child
//! itself puts its process id there, or ends if the word was changed meanwhile: by its parent's
//! next life, or by the supervisor, who closes the nursery before it kills all. So there is no child
//! that the supervisor does not know of.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use clap::Args;
use dsm_registry::Reaper;

use crate::board::{Board, PROCESSES, THREADS, Tenant, now};
use crate::plan::{Child, Event, Random};
use crate::thread::Thread;
use crate::world::World;
use testkit::system::forever as leak;
use testkit::tool::{ensure, text};

pub(crate) const VACANT: u64 = 0;
pub(crate) const CLOSED: u64 = 1;
const FORKING: u64 = 2;
pub(crate) const LIVE: u64 = 3;
/// Bits of what a nursery's word is.
pub(crate) const TAG: u64 = 0xff;

/// What a process of the swarm is told by the supervisor that starts it.
#[derive(Args)]
pub struct Orders {
    namespace: String,
    board: String,
    process: usize,
}

/// One life of a process.
pub(crate) struct Life {
    pub(crate) board: &'static Board,
    pub(crate) process: usize,
    pub(crate) world: World,
    pub(crate) gate: RwLock<()>,
    _reaper: Option<Reaper>,
}

impl Life {
    fn start(board: &'static Board, namespace: &str, process: usize) -> Result<Self, String> {
        let (world, _) = World::open(namespace)?;
        let reaps = board.reapers.load(Relaxed) != 0 && process < PROCESSES;
        let reaper = reaps.then(|| world.registry.spawn_reaper()).transpose().map_err(text)?;
        Ok(Self { board, process, world, gate: RwLock::new(()), _reaper: reaper })
    }

    pub(crate) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn seats(&self) -> std::ops::Range<usize> {
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

/// What the command `worker` does; never returns unless it fails.
pub fn work(orders: &Orders) -> Result<bool, String> {
    let board = Board::open(&orders.board)?;
    // A child that the last life was about to have.
    let nursery = &board.nursery[orders.process];
    let word = nursery.load(Acquire);
    if word & TAG == FORKING {
        let _ = nursery.compare_exchange(word, VACANT, AcqRel, Relaxed);
    }
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
    let worked = move || fail(life.board, Thread::start(life, seat).and_then(|mut t| t.work()));
    builder.spawn(worked).map(|_| ()).map_err(text)
}

/// Ends the process, after a complaint; also if there is none, as its threads are to work for ever.
fn fail(board: &Board, done: Result<(), String>) -> ! {
    let error = done.err().unwrap_or_else(|| "a thread ended".into());
    testkit::tool::complain("crash", &format!("process {}: {error}", std::process::id()));
    board.failed.store(1, Release);
    exit(2)
}

fn exit(status: i32) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status) }
}

/// Forks while the calling thread holds what `guards` are; `life.gate` must be had alone. Returns in
/// the parent only, which gives them back by `release`; the child drops them.
pub(crate) fn fork<G>(
    life: &'static Life,
    tenant: Tenant,
    random: &mut Random,
    mode: Child,
    guards: G,
    release: impl FnOnce(G),
) -> Result<(), String> {
    let nursery = &life.board.nursery[life.process % PROCESSES];
    let forking = tenant.word() << 8 | FORKING;
    // Only processes of the supervisor's have a nursery.
    let mode = if life.process >= PROCESSES { Child::Exits } else { mode };
    let claims = mode != Child::Exits;
    if claims && nursery.compare_exchange(VACANT, forking, AcqRel, Relaxed).is_err() {
        release(guards);
        return Ok(());
    }
    let duration = random.below(40_000_000);
    // SAFETY: no other thread is inside a call that could leave a lock behind in the child: the
    // gate is ours; and the C library looks after its own.
    let pid = unsafe { libc::fork() };
    ensure(pid >= 0, || format!("no fork: {}", std::io::Error::last_os_error()))?;
    if pid == 0 {
        drop(guards);
        let done = inherit(life).and_then(|()| {
            if !claims {
                exit(0);
            }
            let live = u64::from(std::process::id()) << 8 | LIVE;
            if nursery.compare_exchange(forking, live, AcqRel, Relaxed).is_err() {
                exit(0);
            }
            life.board.count_child(mode);
            be(life.board, &life.world.name, life.process + PROCESSES, mode, duration)
        });
        fail(life.board, done);
    }
    release(guards);
    if !claims {
        life.board.count_child(mode);
        let mut status = 0;
        // SAFETY: a child that nobody else waits for.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        ensure(waited == pid && status == 0, || format!("a child ended with {status:x}"))?;
    }
    Ok(())
}

/// What the child finds: handles that tell it that they are its parent's.
fn inherit(life: &Life) -> Result<(), String> {
    let forked = |error| matches!(error, Some(dsm_registry::Error::Forked));
    ensure(forked(life.world.accounts.get(&0).err()), || "a table works in a child".into())?;
    ensure(forked(life.world.area.trim().err()), || "an area works in a child".into())?;
    let segment = life.world.core.namespace.create_segment(1, 1);
    ensure(segment.is_err(), || "a namespace works in a child".into())
}

/// The child's life, as a process of its own.
fn be(
    board: &'static Board,
    name: &str,
    process: usize,
    mode: Child,
    duration: u64,
) -> Result<(), String> {
    match mode {
        Child::Exits => {}
        Child::Works => drop(live(board, name, process, u64::MAX)?),
        Child::Dies => drop(live(board, name, process, now() + duration)?),
        Child::Leaves => {
            let life = leak(Life::start(board, name, process)?);
            let mut thread = Thread::start(life, seats(process).start)?;
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
