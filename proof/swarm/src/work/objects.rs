//! Objects of areas: of the cores' by `allocate_into`, `move_between` and `free_from`, by which
//! none is ever lost; of the registry's by `take`, and bare, by which somebody who is killed takes
//! one along. So the first area's books are exact, and of the second's objects at most one is lost
//! by each death in the midst of one of these operations.

use std::ptr::NonNull;
use std::sync::atomic::Ordering::Acquire;

use dsa_core::{Error, Flags};
use dsm_registry::DsaPointer;

use crate::board::SEATS;
use crate::cores::{CELLS as CORE_CELLS, CoreThread};
use crate::plan::{Kind, Random};
use crate::thread::Thread;
use crate::world::{CELLS, World};
use testkit::tool::{ensure, text};

/// Bytes of an object: of each way in which objects lie, the frequent ones often.
fn size(random: &mut Random) -> usize {
    match random.below(40) {
        0 => 200_000,
        1..=2 => 20_000,
        3..=5 => 4096,
        6..=15 => 700,
        16..=25 => 96,
        _ => 8 + 8 * random.below(12) as usize,
    }
}

/// Fills an object with its size, at its begin and end.
fn fill(at: NonNull<u8>, size: usize) {
    for word in [0, size - 8] {
        // SAFETY: within a new object of that size, a multiple of 8.
        let at = unsafe { at.add(word) };
        // SAFETY: aligned, as objects and sizes are.
        unsafe { at.cast::<u64>().write(size as u64) };
    }
}

/// Allocates into a cell of the seat's own: of two who fill the same, one would lose its object.
pub(super) fn allocate_into(thread: &mut Thread) -> Result<(), String> {
    let core = thread.core;
    let own = thread.random.below(CORE_CELLS as u64) as usize;
    let cell = core.core.cell(thread.tenant.seat * CORE_CELLS + own)?;
    if !cell.load(Acquire).is_valid() {
        let size = size(&mut thread.random);
        let init = |at| fill(at, size);
        core.heap.allocate_into(size, 8, Flags::empty(), cell, init).map_err(text)?;
    }
    // And one of the other area.
    let own = thread.random.below(CELLS as u64) as usize;
    let world = thread.world();
    let cell = world.cell(thread.tenant.seat * CELLS + own)?;
    if !cell.load(Acquire).is_valid() {
        let done = match thread.random.below(12) {
            0 => world.area.allocate_into([2000_u64; 2000], cell).map(drop),
            1..=3 => world.area.allocate_into([300_u64; 300], cell).map(drop),
            _ => world.area.allocate_into([12_u64; 12], cell).map(drop),
        };
        done.map_err(text)?;
    }
    Ok(())
}

/// A core's object is allocated but never published: for ends without destructors.
pub(super) fn allocate_unfinished(core: CoreThread, seat: usize, then: impl FnOnce()) {
    if let Ok(cell) = core.core.cell(seat * CORE_CELLS) {
        let _ = core.heap.allocate_into(96, 8, Flags::empty(), cell, |_| then());
    }
}

/// Frees from any cell, together with others who want the same, or moves from there to any other
/// one of one's own: whoever fills that is this thread.
pub(super) fn free_from(thread: &mut Thread) -> Result<(), String> {
    let core = thread.core;
    let cell = core.core.cell(thread.random.below((SEATS * CORE_CELLS) as u64) as usize)?;
    if thread.random.one_in(2) {
        let own = thread.random.below(CORE_CELLS as u64) as usize;
        let own = core.core.cell(thread.tenant.seat * CORE_CELLS + own)?;
        // SAFETY: cells are used for nothing else.
        return match unsafe { core.heap.move_between(cell, own) } {
            Ok(_) | Err(Error::Occupied(_)) => Ok(()),
            Err(error) => Err(text(error)),
        };
    }
    // SAFETY: nobody uses an object of these cells.
    unsafe { core.heap.free_from(cell) }.map_err(text)
}

/// Objects that nobody else ever sees; one at a time.
pub(super) fn allocate(thread: &mut Thread) -> Result<(), String> {
    let area = &thread.world().area;
    let pointer = match thread.random.below(8) {
        0 => area.allocate([7_u64; 3000]).map(|object| object.pointer()),
        1 => area.allocate([7_u64; 500]).map(|object| object.pointer()),
        2..=4 => area.allocate([7_u64; 20]).map(|object| object.pointer()),
        _ => area.allocate([7_u64; 2]).map(|object| object.pointer()),
    };
    let pointer = pointer.map_err(text)?;
    let word: u64 = area.read(pointer.cast()).map_err(text)?;
    ensure(word == 7, || format!("a new object starts with {word}"))?;
    // SAFETY: nobody else knows it.
    unsafe { area.free::<u64>(pointer.cast()) }.map_err(text)
}

/// Takes an object out of any cell, and frees it.
pub(super) fn free_remote(thread: &mut Thread) -> Result<(), String> {
    let world = thread.world();
    let cell = world.cell(thread.random.below((SEATS * CELLS) as u64) as usize)?;
    let taken = world.area.take::<u64>(cell).map_err(text)?.pointer();
    if taken.is_valid() { free_whole(world, taken) } else { Ok(()) }
}

fn is_whole<const WORDS: usize>(world: &World, object: DsaPointer) -> Result<bool, String> {
    let words: [u64; WORDS] = world.area.read(object.cast()).map_err(text)?;
    Ok(words == [WORDS as u64; WORDS])
}

/// Looks whether an object is whole, and frees it.
fn free_whole(world: &World, object: DsaPointer) -> Result<(), String> {
    let words: u64 = world.area.read(object.cast()).map_err(text)?;
    let whole = match words {
        12 => is_whole::<12>(world, object)?,
        300 => is_whole::<300>(world, object)?,
        2000 => is_whole::<2000>(world, object)?,
        _ => false,
    };
    ensure(whole, || format!("an object that starts with {words} was changed"))?;
    // SAFETY: taken out of its cell: nobody else knows it.
    unsafe { world.area.free::<u64>(object.cast()) }.map_err(text)
}

pub(super) fn trim(thread: &mut Thread) -> Result<(), String> {
    if thread.random.one_in(2) {
        thread.core.heap.trim().map(drop).map_err(text)
    } else {
        thread.world().area.trim().map_err(text)
    }
}

/// What areas hold when all are dead.
#[derive(Clone, Copy, Default)]
pub(in super::super) struct Objects {
    /// Objects that nobody knows: each was in the hands of somebody who was killed.
    pub(in super::super) lost: u64,
    /// Bytes of all objects of both areas.
    pub(in super::super) used: u64,
}

/// When all are dead and settled: each object is in a cell and whole, and nothing else is used but
/// what the killed may have had in hand.
pub(in super::super) fn verify(world: &World, in_hand: u64) -> Result<Objects, String> {
    let core = world.core.join()?;
    // What the dead had not published is found by recovery, and what they moved is in one place.
    core.heap.trim().map_err(text)?;
    let area = world.core.area;
    area.check(core.participant).map_err(text)?;
    let (mut objects, mut used) = (1, area.size_of_object(world.core.cells()).map_err(text)?);
    for index in 0..SEATS * CORE_CELLS {
        let object = world.core.cell(index)?.load(Acquire);
        if object.is_valid() {
            let mut size = [0; 8];
            // SAFETY: objects are used through checked copies only, once they are filled.
            unsafe { area.copy_out(object, 0, &mut size) }.map_err(text)?;
            let mut end = [0; 8];
            let last = (u64::from_ne_bytes(size) as usize).saturating_sub(8);
            // SAFETY: as above.
            unsafe { area.copy_out(object, last, &mut end) }.map_err(text)?;
            ensure(size == end, || format!("{object:?} was changed"))?;
            objects += 1;
            used += area.size_of_object(object).map_err(text)?;
        }
    }
    let found = area.check(core.participant).map_err(|error| {
        let mut all = String::new();
        let _ = area.dump(&mut all);
        format!("{error:?}\n{all}")
    })?;
    core.part()?;
    ensure((found.objects, found.used, found.unpublished) == (objects, used, 0), || {
        format!(
            "{} objects of {} bytes in the area ({} unpublished), {objects} of {used} in its cells",
            found.objects, found.used, found.unpublished
        )
    })?;
    let mut objects = 1;
    for index in 0..SEATS * CELLS {
        objects += u64::from(world.cell(index)?.load(Acquire).is_valid());
    }
    world.area.trim().map_err(text)?;
    let found = world.area.check().map_err(text)?;
    ensure(found.unpublished == 0, || "an unpublished object is left".into())?;
    let lost = found.objects.checked_sub(objects);
    let lost = lost.ok_or_else(|| format!("{} objects, {objects} in cells", found.objects))?;
    ensure(lost <= in_hand, || format!("{lost} objects were lost by {in_hand} deaths"))?;
    Ok(Objects { lost, used: used + found.used })
}

/// Frees all objects of both areas.
pub(in super::super) fn use_up(world: &World) -> Result<(), String> {
    let core = world.core.join()?;
    for index in 0..SEATS * CORE_CELLS {
        // SAFETY: nobody uses an object of these cells.
        unsafe { core.heap.free_from(world.core.cell(index)?) }.map_err(text)?;
    }
    core.part()?;
    for index in 0..SEATS * CELLS {
        let object = world.area.take::<u64>(world.cell(index)?).map_err(text)?.pointer();
        if object.is_valid() {
            free_whole(world, object)?;
        }
    }
    Ok(())
}

/// Kinds in the midst of which somebody has an object in hand.
pub(in super::super) const IN_HAND: [Kind; 2] = [Kind::AllocateBare, Kind::FreeRemote];
