//! Everything is there, when nobody works any more.

use std::sync::atomic::Ordering::Acquire;

use dsm_core::namespace::Opened;
use dsm_registry::{HashTable, Key, Plain};

use crate::board::Board;
use crate::plan::{Event, Kind};
use crate::work;
use crate::world::{World, core_name};
use testkit::tool::{ensure, text};

/// Makes what the swarm shares; says how many objects there are in the system when all of that is
/// empty.
pub(crate) fn prepare(name: &str) -> Result<usize, String> {
    ensure(left(name).is_empty(), || format!("there is something of {name} already"))?;
    let (world, opened) = World::open(name)?;
    ensure(opened == Opened::Created, || format!("{opened:?}"))?;
    world.leave()?;
    Ok(left(name).len())
}

/// Takes over from the dead, completes their books, and compares everything with them. Returns
/// how many objects nobody knows.
pub(crate) fn account(name: &str, board: &Board) -> Result<u64, String> {
    work::verify_brief(board, name)?;
    let (world, opened) = World::open(name)?;
    ensure(opened == Opened::Resumed, || format!("{opened:?} after the death of all"))?;
    board.count(Event::Resumed);
    world.registry.reap().map_err(text)?;
    world.core.namespace.reap().map_err(text)?;
    for seat in 0..board.seats.len() {
        work::settle(board, &world, seat)?;
    }
    work::verify_locks(board, &world)?;
    work::verify_tables(board, &world)?;
    let in_hand: u64 = work::IN_HAND.into_iter().map(|kind: Kind| board.died(kind)).sum();
    let objects = work::verify_objects(&world, in_hand)?;
    let mailed = work::count_segments(board, &world)?;
    let expected = 1 + world.core.area.stats().map_err(text)?.segments as usize + mailed;
    world.leave()?;
    let segments = segments(&core_name(name))?;
    ensure(segments == expected, || format!("{segments} segments instead of {expected}"))?;
    Ok(objects.lost)
}

/// Uses everything up; then nothing is left in the system.
pub(crate) fn finish(name: &str, board: &Board, base: usize) -> Result<(), String> {
    let (world, _) = World::open(name)?;
    work::use_up_names(&world)?;
    work::use_up_objects(&world)?;
    work::use_up_segments(board, &world)?;
    empty(&world.accounts)?;
    empty(&world.hot)?;
    empty(&world.entries)?;
    empty(&world.queue)?;
    world.area.trim().map_err(text)?;
    let objects = work::verify_objects(&world, u64::MAX)?;
    let kept = world.core.area.size_of_object(world.core.cells()).map_err(text)?
        + world.area.stats().map_err(text)?.used;
    ensure(objects.used == kept, || format!("{} bytes are used, not {kept}", objects.used))?;
    let segments = left(name).len();
    ensure(objects.lost > 0 || segments <= base + SPARE, || {
        format!("{segments} objects in the system, {base} at the start: {:?}", left(name))
    })?;
    world.registry.set_persistent(false).map_err(text)?;
    world.core.namespace.set_persistent(false).map_err(text)?;
    world.leave()?;
    ensure(board.failed.load(Acquire) == 0, || "a worker complained".into())?;
    ensure(left(name).is_empty(), || format!("left in the system: {:?}", left(name)))
}

fn empty<K: Key, V: Plain>(table: &HashTable<K, V>) -> Result<(), String> {
    table.clear().map_err(text)?;
    table.trim().map_err(text)?;
    ensure(table.is_empty().map_err(text)?, || "a table is not empty".into())
}

/// Segments that areas may keep when they are emptied, beyond what they were made with.
const SPARE: usize = 2;

/// How many segments there are in a namespace, as tools see it.
fn segments(name: &str) -> Result<usize, String> {
    Ok(left(name).len() - 1)
}

/// What there is in the system of a namespace, and of those whose names begin with its.
fn left(namespace: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains(namespace)).collect()
}
