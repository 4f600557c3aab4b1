//! Segments of the cores: created, pinned and put into a mailbox, attached by others from there,
//! unpinned when the next is put there.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use dsm_core::handle::SegmentHandle;
use dsm_core::namespace::Error;
use dsm_core::segment::Segment;

use crate::board::{Board, MAILBOXES};
use crate::thread::Thread;
use crate::world::World;
use testkit::tool::{ensure, text};

fn word(segment: &Segment<'_>, at: usize) -> *mut u64 {
    // SAFETY: callers pass the first or the last word of the segment.
    unsafe { segment.base().add(at) }.as_ptr().cast()
}

/// Writes what the segment is by, at its begin and end.
fn sign(segment: &Segment<'_>) {
    for at in [0, segment.len() - 8] {
        // SAFETY: within the segment, aligned, and nobody else has it yet.
        unsafe { word(segment, at).write_volatile(segment.handle().get()) };
    }
}

fn is_signed(segment: &Segment<'_>) -> bool {
    [0, segment.len() - 8].iter().all(|at| {
        // SAFETY: within the segment, aligned, and not written to once others have it.
        (unsafe { word(segment, *at).read_volatile() }) == segment.handle().get()
    })
}

/// Unpins, unless somebody else has.
fn unpin(world: &World, handle: u64) -> Result<(), String> {
    let Some(handle) = SegmentHandle::from_raw(handle) else { return Ok(()) };
    match world.core.namespace.unpin_segment(handle) {
        Ok(()) | Err(Error::Pinned(false) | Error::NoSuchSegment(_)) => Ok(()),
        Err(error) => Err(text(error)),
    }
}

pub(super) fn create(thread: &mut Thread) -> Result<(), String> {
    let size = 8 * (1 + thread.random.below(4096)) as usize;
    let segment = thread.core.core.namespace.create_object(size, size).map_err(text)?;
    sign(&segment);
    let handle = segment.handle();
    let (board, world) = (thread.board(), thread.world());
    let books = &board.seats[thread.tenant.seat];
    let mailbox = &board.mailboxes[thread.random.below(MAILBOXES as u64) as usize];
    if thread.random.one_in(3) {
        // Seen by nobody: goes with its handle.
        return Ok(());
    }
    books.pinning.store(handle.get(), Release);
    thread.core.core.namespace.pin_segment(handle).map_err(text)?;
    let before = mailbox.load(Acquire);
    books.unpinning.store(before, Release);
    if mailbox.compare_exchange(before, handle.get(), AcqRel, Acquire).is_ok() {
        unpin(world, before)?;
    } else {
        unpin(world, handle.get())?;
    }
    books.unpinning.store(0, Release);
    books.pinning.store(0, Release);
    Ok(())
}

pub(super) fn attach(thread: &mut Thread) -> Result<(), String> {
    let mailbox = &thread.board().mailboxes[thread.random.below(MAILBOXES as u64) as usize];
    let Some(handle) = SegmentHandle::from_raw(mailbox.load(Acquire)) else { return Ok(()) };
    match thread.core.core.namespace.attach_segment(handle).map_err(text)? {
        Some(segment) => ensure(is_signed(&segment), || format!("{handle:?} was changed")),
        // Gone meanwhile.
        None => ensure(mailbox.load(Acquire) != handle.get(), || format!("{handle:?} is gone")),
    }
}

pub(super) fn settle(board: &Board, world: &World, seat: usize) -> Result<(), String> {
    let books = &board.seats[seat];
    for word in [&books.unpinning, &books.pinning] {
        let handle = word.load(Acquire);
        let in_use = board.mailboxes.iter().any(|mailbox| mailbox.load(Acquire) == handle);
        if handle != 0 && !in_use {
            unpin(world, handle)?;
        }
        word.store(0, Release);
    }
    Ok(())
}

/// When all are dead and settled, and the dead were reaped: how many segments there are in
/// mailboxes, which are all pinned, signed, and attached by nobody.
pub(in super::super) fn count(board: &Board, world: &World) -> Result<usize, String> {
    let mut count = 0;
    for mailbox in &board.mailboxes {
        let Some(handle) = SegmentHandle::from_raw(mailbox.load(Acquire)) else { continue };
        let attached = world.core.namespace.attached_processes(handle);
        ensure(attached == Some(0), || format!("{handle:?} is attached by {attached:?}"))?;
        let segment = world.core.namespace.attach_segment(handle).map_err(text)?;
        let segment = segment.ok_or_else(|| format!("{handle:?} was lost"))?;
        ensure(is_signed(&segment), || format!("{handle:?} was changed"))?;
        count += 1;
    }
    Ok(count)
}

/// Unpins what is in the mailboxes.
pub(in super::super) fn use_up(board: &Board, world: &World) -> Result<(), String> {
    for mailbox in &board.mailboxes {
        let handle = mailbox.swap(0, AcqRel);
        if let Some(handle) = SegmentHandle::from_raw(handle) {
            world.core.namespace.unpin_segment(handle).map_err(text)?;
        }
    }
    Ok(())
}
