//! Names of the registry, that come and go; and whole namespaces.

use std::sync::atomic::Ordering::{AcqRel, Release};

use dsm_registry::{BoxError, Error, ErrorKind, Init, Registry};

use crate::board::{Asked, Board, NAMES};
use crate::plan::Event;
use crate::thread::Thread;
use crate::world::{World, brief_name, whole};
use testkit::tool::{ensure, text};

/// Removed, or a reason why it could not be that is none to complain of.
fn removed(done: Result<(), Error>) -> Result<(), String> {
    use ErrorKind::{InUse, Initialising, NotFound};
    match done.map_err(Error::into_kind) {
        Ok(()) | Err(NotFound { .. } | InUse { .. } | Initialising { .. }) => Ok(()),
        Err(error) => Err(text(error)),
    }
}

/// What an initialiser begins with: it notes who it is, and finds who has died as one.
fn initialise(board: &Board, number: usize, tenant: u64, asked: Asked) {
    let before = board.naming[number].swap(tenant, AcqRel);
    if before != 0 {
        board.count(Event::Initialised);
        board.waited(&board.name_waits, before, asked);
    }
}

pub(super) fn segment(thread: &mut Thread, asked: Asked) -> Result<(), String> {
    let number = thread.random.below(NAMES as u64) as usize;
    named_segment(thread, number, asked, |init| {
        init.write(whole(number as u64))?;
        Ok(())
    })
}

pub(super) fn named_segment(
    thread: &Thread,
    number: usize,
    asked: Asked,
    init: impl FnOnce(&mut Init<'_, [u64; 4]>) -> Result<(), BoxError>,
) -> Result<(), String> {
    let (board, tenant) = (thread.board(), thread.tenant.word());
    let segment = thread.world().registry.segment(&format!("name-{number}"), |memory| {
        initialise(board, number, tenant, asked);
        init(memory)?;
        board.naming[number].store(0, Release);
        Ok(())
    });
    let segment = segment.map_err(text)?;
    ensure(*segment == whole(number as u64), || format!("{:x?} in name {number}", *segment))
}

pub(super) fn table(thread: &mut Thread) -> Result<(), String> {
    let registry = &thread.world().registry;
    let name = format!("table-{}", thread.random.below(NAMES as u64));
    let table = registry.hash::<u64, u64>(&name).map_err(text)?;
    match table.insert(&1, 1) {
        Ok(_) => {}
        Err(error) if error.is_poisoned() => drop(table.remove(&1).map_err(text)?),
        Err(error) => return Err(text(error)),
    }
    drop(table);
    removed(registry.remove(&name))
}

pub(super) fn remove(thread: &mut Thread) -> Result<(), String> {
    let name = format!("name-{}", thread.random.below(NAMES as u64));
    let registry = &thread.world().registry;
    removed(if thread.random.one_in(4) {
        registry.remove_forced(&name)
    } else {
        registry.remove(&name)
    })
}

/// Opens the namespace that goes with whoever leaves it last, uses and leaves it.
pub(super) fn open(thread: &mut Thread) -> Result<(), String> {
    let brief = Registry::open(&brief_name(&thread.world().name)).map_err(text)?;
    let number = thread.random.below(100);
    let value = brief.segment::<[u64; 4]>("brief", |init| init.write(whole(0))).map_err(text)?;
    ensure(*value == whole(0), || format!("{:x?} in a brief namespace", *value))?;
    let table = brief.hash::<u64, u64>("brief table").map_err(text)?;
    match table.insert(&number, number) {
        Ok(_) => Ok(()),
        Err(error) if error.is_poisoned() => table.remove(&number).map(drop).map_err(text),
        Err(error) => Err(text(error)),
    }
}

/// After the death of all: nothing is left of the namespace that was not persistent.
pub(in super::super) fn verify_brief(board: &Board, name: &str) -> Result<(), String> {
    let brief = Registry::open(&brief_name(name)).map_err(text)?;
    let names = brief.list().map_err(text)?;
    ensure(names.is_empty(), || format!("{names:?} survived all who had them"))?;
    board.count(Event::Cleaned);
    Ok(())
}

/// Removes all names that workers made.
pub(in super::super) fn use_up(world: &World) -> Result<(), String> {
    for thing in world.registry.list().map_err(text)? {
        if thing.name.contains('-') {
            world.registry.remove(&thing.name).map_err(text)?;
        }
    }
    Ok(())
}
