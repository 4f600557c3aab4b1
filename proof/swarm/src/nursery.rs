//! Children that a process forks while its threads hold something.
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

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use crate::board::{Board, PROCESSES, Tenant};
use crate::life::{Life, exit, fail};
use crate::plan::{Child, Random};
use testkit::tool::ensure;

pub(crate) const VACANT: u64 = 0;
pub(crate) const CLOSED: u64 = 1;
const FORKING: u64 = 2;
pub(crate) const LIVE: u64 = 3;
/// Bits of what a nursery's word is.
pub(crate) const TAG: u64 = 0xff;

/// Forgets a child that the last life of a process was about to have.
pub(crate) fn forget_unborn(board: &Board, process: usize) {
    let nursery = &board.nursery[process];
    let word = nursery.load(Acquire);
    if word & TAG == FORKING {
        let _ = nursery.compare_exchange(word, VACANT, AcqRel, Relaxed);
    }
}

/// What a child does that goes on to work, and for how many nanoseconds if that is to end; never
/// returns unless it fails.
pub(crate) type Be = fn(&Life, Child, u64) -> Result<(), String>;

/// Forks while the calling thread holds what `guards` are; `life.gate` must be had alone. Returns
/// in the parent only, which gives them back by `release`; the child drops them.
pub(crate) fn fork<G>(
    life: &'static Life,
    tenant: Tenant,
    random: &mut Random,
    mode: Child,
    guards: G,
    release: impl FnOnce(G),
    be: Be,
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
            be(life, mode, duration)
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
    let forked = |error: Option<dsm_registry::Error>| {
        error.is_some_and(|error| *error.kind() == dsm_registry::ErrorKind::Forked)
    };
    ensure(forked(life.world.accounts.get(&0).err()), || "a table works in a child".into())?;
    ensure(forked(life.world.area.trim().err()), || "an area works in a child".into())?;
    let segment = life.world.core.namespace.create_segment(1, 1);
    ensure(segment.is_err(), || "a namespace works in a child".into())
}
