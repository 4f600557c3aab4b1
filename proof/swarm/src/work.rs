//! The operations of the swarm, each with what its author writes down, and how its successor
//! settles it.

mod locks;
mod names;
mod objects;
mod raw;
mod segments;
mod tables;

use std::sync::atomic::Ordering::Acquire;

use crate::board::{Asked, Board};
use crate::plan::Kind;
use crate::thread::Thread;
use crate::world::World;
use testkit::tool::text;

pub(crate) use locks::shared as lock_shared;
pub(crate) use raw::vanish;
pub(crate) use tables::hot_guard;

/// How many of a kind are done in a row: all kinds take about as long, so that each is met by
/// about as many kills.
pub(crate) fn batch(kind: Kind) -> usize {
    match kind {
        Kind::LockExclusive | Kind::LockShared | Kind::LockTimed => 1000,
        Kind::AllocateInto | Kind::FreeFrom | Kind::AllocateBare | Kind::FreeRemote => 300,
        Kind::TableAccount | Kind::TableHot | Kind::TableEntry => 500,
        Kind::TableGrow | Kind::TableShrink => 300,
        Kind::SegmentAttach => 20,
        Kind::SegmentCreate | Kind::TableScan | Kind::NameSegment | Kind::NameRemove => 2,
        _ => 1,
    }
}

pub(crate) fn perform(thread: &mut Thread, kind: Kind, asked: Asked) -> Result<(), String> {
    match kind {
        Kind::LockExclusive => locks::exclusive(thread, asked),
        Kind::LockShared => locks::look(thread, asked),
        Kind::LockTimed => locks::timed(thread, asked),
        Kind::SegmentCreate => segments::create(thread),
        Kind::SegmentAttach => segments::attach(thread),
        Kind::AllocateInto => objects::allocate_into(thread),
        Kind::FreeFrom => objects::free_from(thread),
        Kind::AllocateBare => objects::allocate(thread),
        Kind::FreeRemote => objects::free_remote(thread),
        Kind::Trim => objects::trim(thread),
        Kind::TableAccount => tables::account(thread),
        Kind::TableHot => tables::hot(thread, asked),
        Kind::TableEntry => tables::entry(thread),
        Kind::TableGrow => tables::grow(thread),
        Kind::TableShrink => tables::shrink(thread),
        Kind::TableScan => tables::scan(thread),
        Kind::TableScanRemove => tables::scan_remove(thread),
        Kind::TableTrim => thread.world().queue.trim().map_err(text),
        Kind::NameSegment => names::segment(thread, asked),
        Kind::NameTable => names::table(thread),
        Kind::NameRemove => names::remove(thread),
        Kind::Open => names::open(thread),
        Kind::Reap => thread.world().registry.reap().map(drop).map_err(text),
        Kind::Fork => Ok(()),
    }
}

/// Completes the books of a seat, whose tenant is dead.
pub(crate) fn settle(board: &Board, world: &World, seat: usize) -> Result<(), String> {
    if board.seats[seat].generation.load(Acquire) == 0 {
        return Ok(());
    }
    board.bury(seat);
    locks::settle(board, world, seat)?;
    segments::settle(board, world, seat)?;
    tables::settle(board, world, seat)
}

pub(crate) use locks::verify as verify_locks;
pub(crate) use names::{use_up as use_up_names, verify_brief};
pub(crate) use objects::{IN_HAND, use_up as use_up_objects, verify as verify_objects};
pub(crate) use segments::{count as count_segments, use_up as use_up_segments};
pub(crate) use tables::verify as verify_tables;
