//! Locks of the cores, in each form.
//!
//! Under the lock a seat adds one to its part of a record, then to the total; the next owner after
//! a death makes the total right. A part is what the books say, or one more if its author died in
//! between.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{Acquired, ExclusiveGuard, LockError, Patience, SharedGuard};
use dsm_core::participant::Peers;

use crate::board::{Asked, Board, LOCKS};
use crate::cores::Record;
use crate::plan::Event;
use crate::thread::Thread;
use crate::world::World;
use testkit::tool::{ensure, text};

type Exclusive = ExclusiveGuard<'static, RwLock>;
type Shared = SharedGuard<'static, RwLock>;

/// Whether a wait ended without the lock, which is no mistake.
fn in_vain(error: LockError) -> bool {
    matches!(error, LockError::WouldBlock | LockError::TimedOut)
}

fn sum(record: &Record) -> u64 {
    record.by.iter().map(|part| part.load(Relaxed)).sum()
}

/// Takes a lock, and repairs what a dead owner left.
fn acquire(
    thread: &Thread,
    index: usize,
    patience: Patience,
    asked: Asked,
) -> Result<Option<Exclusive>, String> {
    let core = thread.core;
    let mut guard = match core.core.lock(index).exclusive(core.participant, patience) {
        Err(error) if in_vain(error) => return Ok(None),
        guard => guard.map_err(text)?,
    };
    let record = core.core.record(index);
    let before = record.holder.swap(thread.tenant.word(), Relaxed);
    if guard.acquired() == Acquired::FromDead {
        thread.board().waited(&thread.board().lock_waits, before, asked);
        thread.board().count(Event::LocksFromDead);
        record.total.store(sum(record), Relaxed);
        guard.mark_recovered();
    } else {
        ensure(before == 0, || format!("lock {index} was had from {before:x}, who lives"))?;
    }
    Ok(Some(guard))
}

/// Does something to the record, and gives the lock back.
fn change(thread: &Thread, index: usize, guard: Exclusive) -> Result<(), String> {
    let seat = thread.tenant.seat;
    let (books, record) = (&thread.board().seats[seat], thread.core.core.record(index));
    let total = record.total.load(Relaxed);
    ensure(total == sum(record), || format!("{total} under lock {index}, not {}", sum(record)))?;
    books.locking.store(index as u64 + 1, Release);
    record.by[seat].fetch_add(1, Relaxed);
    record.total.store(total + 1, Relaxed);
    books.locked[index].fetch_add(1, Release);
    books.locking.store(0, Release);
    record.holder.store(0, Relaxed);
    drop(guard);
    Ok(())
}

fn any(thread: &mut Thread) -> usize {
    thread.random.below(LOCKS as u64) as usize
}

pub(super) fn exclusive(thread: &mut Thread, asked: Asked) -> Result<(), String> {
    let index = any(thread);
    match acquire(thread, index, Patience::Forever, asked)? {
        Some(guard) => change(thread, index, guard),
        None => Err("gave up waiting".into()),
    }
}

/// Takes a lock shared, after repairing it if need be.
pub(in super::super) fn shared(
    thread: &Thread,
    index: usize,
    patience: Patience,
    asked: Asked,
) -> Result<Option<Shared>, String> {
    let core = thread.core;
    loop {
        match core.core.lock(index).shared(core.participant, patience) {
            Ok(Some(guard)) => return Ok(Some(guard)),
            Ok(None) => {
                let Some(guard) = acquire(thread, index, patience, asked)? else { return Ok(None) };
                core.core.record(index).holder.store(0, Relaxed);
                drop(guard);
            }
            Err(error) if in_vain(error) => return Ok(None),
            Err(error) => return Err(text(error)),
        }
    }
}

/// Looks at a record under a shared lock, and at another while holding the first.
pub(super) fn look(thread: &mut Thread, asked: Asked) -> Result<(), String> {
    let index = any(thread);
    let guard = shared(thread, index, Patience::Forever, asked)?;
    let record = thread.core.core.record(index);
    let (total, parts) = (record.total.load(Relaxed), sum(record));
    ensure(total == parts, || format!("{total} seen under lock {index}, not {parts}"))?;
    if index + 1 < LOCKS && thread.random.one_in(4) {
        let other = index + 1 + thread.random.below((LOCKS - index - 1) as u64) as usize;
        // One at a time is taken in the order of their numbers; a recovery would hold both.
        drop(shared(thread, other, Patience::Forever, asked)?);
    }
    drop(guard);
    Ok(())
}

/// The forms that give up.
pub(super) fn timed(thread: &mut Thread, asked: Asked) -> Result<(), String> {
    let index = any(thread);
    let patience = if thread.random.one_in(2) {
        Patience::Try
    } else {
        let time = Duration::from_micros(thread.random.below(3000));
        Patience::Until(thread.core.core.namespace.env().now() + time)
    };
    if thread.random.one_in(2) {
        return shared(thread, index, patience, asked).map(drop);
    }
    match acquire(thread, index, patience, asked)? {
        Some(guard) => change(thread, index, guard),
        None => Ok(()),
    }
}

/// A lock held alone, in the midst of a change of the record: for ends without destructors.
pub(super) fn hold(thread: &Thread, index: usize, asked: Asked) -> Result<Exclusive, String> {
    let guard = acquire(thread, index, Patience::Forever, asked)?.ok_or("gave up waiting")?;
    let seat = thread.tenant.seat;
    thread.board().seats[seat].locking.store(index as u64 + 1, Release);
    thread.core.core.record(index).by[seat].fetch_add(1, Relaxed);
    Ok(guard)
}

pub(super) fn settle(board: &Board, world: &World, seat: usize) -> Result<(), String> {
    let books = &board.seats[seat];
    for index in 0..LOCKS {
        let noted = books.locked[index].load(Acquire);
        let done = world.core.record(index).by[seat].load(Acquire);
        let at = books.locking.load(Acquire) == index as u64 + 1;
        ensure(done == noted || at && done == noted + 1, || {
            format!("seat {seat} did {noted} changes under lock {index}, {done} are there")
        })?;
        books.locked[index].store(done, Release);
    }
    books.locking.store(0, Release);
    Ok(())
}

/// When all are dead and settled: every lock can be had, and every change is there once.
pub(in super::super) fn verify(board: &Board, world: &World) -> Result<(), String> {
    let thread = world.core.join()?;
    for index in 0..LOCKS {
        let lock = world.core.lock(index).exclusive(thread.participant, Patience::Forever);
        let mut guard = lock.map_err(text)?;
        let record = world.core.record(index);
        if guard.acquired() == Acquired::FromDead {
            board.count(Event::LocksFromDead);
            record.total.store(sum(record), Relaxed);
            guard.mark_recovered();
        }
        record.holder.store(0, Relaxed);
        let total = record.total.load(Relaxed);
        let noted: u64 = board.seats.iter().map(|seat| seat.locked[index].load(Acquire)).sum();
        ensure(total == noted && sum(record) == noted, || {
            format!("{total} changes under lock {index}, {noted} in the books")
        })?;
    }
    thread.part()
}
