//! A scene of objects in an area, and the judge of what a death left of them.
//!
//! An oracle counts: of the objects that were there before, and those that the operation adds or
//! takes away, each is whole; when all are freed nothing is used, and only the first segment is
//! left. Only a bare allocation may lose the one object whose pointer its caller never got.

use std::ops::Range;

use dsa_core::{AtomicDsaPointer, DsaPointer, Flags, Report};
use dshash_core::{Error, TableHandle};
use dsm_core::sync::Ordering;

use super::area_kit::{Kit, Scene, filled, scene};
use super::table_kit::{Typed, User, works};
use crate::case::Case;
use crate::explore::rehearse;
use crate::member::{ensure, finds_nothing, mortals, text};

/// What an operation does to the objects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Allocates one that only its caller knows.
    Allocates,
    /// Frees the object last allocated in preparation.
    Frees,
    /// Puts an object of so many bytes into the first cell.
    Publishes(usize),
    /// Frees the object of so many bytes in the first cell.
    Unlinks(usize),
    /// The same, but who put it there by hand has died, and it was never settled.
    UnlinksUnsettled(usize),
    /// Puts a table into the first cell.
    MakesTable,
    /// Destroys the table in the first cell.
    EndsTable,
    /// Leaves the objects as they are.
    Keeps,
}

/// A scene of objects.
pub(super) struct Objects {
    pub(super) scene: Scene,
    /// Objects, and how many bytes of each were filled.
    known: Vec<(DsaPointer, usize)>,
    pub(super) cells: DsaPointer,
}

pub(super) fn objects(rescuers: usize) -> Objects {
    let scene = scene(rescuers);
    let cells = scene.kits[0].cells(4);
    Objects { scene, known: Vec::new(), cells }
}

impl Objects {
    pub(super) fn witness(&self) -> Kit {
        self.scene.kits[0]
    }

    pub(super) fn victim(&self) -> Kit {
        self.scene.victim
    }

    pub(super) fn with(mut self, who: Kit, size: usize, count: usize) -> Self {
        self.known.extend((0..count).map(|_| who.allocate_filled(size)));
        self
    }

    /// The victim has free objects of that size at hand.
    pub(super) fn warm(self, size: usize) -> Self {
        let victim = self.victim();
        let objects = self.with(victim, size, 40);
        objects.free_last(victim, 5)
    }

    pub(super) fn free_last(mut self, who: Kit, count: usize) -> Self {
        for (pointer, _) in self.known.drain(self.known.len() - count..) {
            who.free(pointer).expect("is an object");
        }
        self
    }

    /// Frees those objects, in the order of their allocation.
    pub(super) fn free_some(mut self, who: Kit, which: Range<usize>) -> Self {
        for (pointer, _) in self.known.drain(which) {
            who.free(pointer).expect("is an object");
        }
        self
    }

    /// The object with that number is what is spoken of as the last.
    pub(super) fn aim(mut self, at: usize) -> Self {
        let last = self.known.len() - 1;
        self.known.swap(at, last);
        self
    }

    /// Objects, and how many bytes of each were filled.
    pub(super) fn known(&self) -> &[(DsaPointer, usize)] {
        &self.known
    }

    pub(super) fn last(&self) -> DsaPointer {
        self.known.last().expect("something was allocated").0
    }

    pub(super) fn case(
        self,
        name: &'static str,
        effect: Effect,
        operate: impl Fn(&Kit) + 'static,
    ) -> Case {
        let Self { scene: Scene { kits, victim }, known, cells } = self;
        let witness = kits[0];
        let rescuers = kits.len() - 1;
        let inherited = known.clone();
        let heir = witness.heir(move |kit| {
            recover(&kit, 0, 0, cells, effect)?;
            judge(&kit, &inherited, cells, effect)
        });
        Case {
            name,
            mortals: mortals(rescuers),
            operate: Box::new(move || operate(&victim)),
            recover: Box::new(move |who, order| recover(&kits[who], who, order, cells, effect)),
            orders: match effect {
                Effect::Unlinks(_) => 4,
                Effect::UnlinksUnsettled(_) => 2,
                _ => 3,
            },
            judge: Box::new(move || judge(&witness, &known, cells, effect)),
            newcomer: Box::new(finds_nothing),
            places: vec![witness.place()],
            heir,
            between: false,
        }
    }
}

/// The dead are found by the namespace, by the area, or by whose word it is, in any order.
fn recover(
    kit: &Kit,
    who: usize,
    order: usize,
    cells: DsaPointer,
    effect: Effect,
) -> Result<(), String> {
    let sweep = || {
        kit.member.reap()?;
        kit.member.succeed()
    };
    match (effect, order) {
        (Effect::UnlinksUnsettled(_), 0) => {
            sweep()?;
            settle(kit, kit.cell(cells, 0))?;
        }
        // The structure that has the word comes first: it frees what that still names, and then
        // that names nothing.
        (Effect::UnlinksUnsettled(_), _) | (Effect::Unlinks(_), 3) => {
            for _ in 0..2 {
                // SAFETY: nobody uses the object, nor the word for something else.
                unsafe { kit.heap.free_from(kit.cell(cells, 0)) }.map_err(text)?;
            }
        }
        (_, 0) => sweep()?,
        // Without ever sweeping the namespace.
        (_, 1) => {}
        // By what it does anyway. A rescuer may be killed: it must not leave an object that it
        // alone knows.
        _ => {
            for size in [40, 600, 20_000] {
                let pointer = if who == 0 {
                    kit.heap.allocate(size)
                } else {
                    kit.heap.allocate_unpublished(size, 8, Flags::empty())
                };
                kit.free(pointer.map_err(text)?)?;
            }
        }
    }
    kit.heap.maintain().map_err(text)
}

/// What a structure does that links objects by a record of its own: it settles what its word names
/// before the area is asked for the property of the dead. (The word may still name what was being
/// freed until the page lock was used, here by a check.)
fn settle(kit: &Kit, cell: &AtomicDsaPointer) -> Result<(), String> {
    kit.area.check(kit.member.participant).map_err(text)?;
    let named = cell.load(Ordering::Acquire);
    if named.is_valid() { kit.heap.settle(named).map_err(text) } else { Ok(()) }
}

fn judge(
    witness: &Kit,
    known: &[(DsaPointer, usize)],
    cells: DsaPointer,
    effect: Effect,
) -> Result<&'static str, String> {
    witness.area.set_size_limit(u64::MAX).map_err(text)?;
    let report = witness.area.check(witness.member.participant).map_err(text)?;
    ensure(report.unpublished == 0, || "an unpublished object is left".into())?;
    let published = witness.cell(cells, 0).load(Ordering::Acquire);
    // The known ones, and the one with the cells.
    let before = known.len() as u64 + 1;
    let mut counted = report.objects;
    // Of a table that was destroyed by its handle the cell still has the name.
    let there = published.is_valid() && witness.area.size_of_object(published).is_ok();
    if matches!(effect, Effect::MakesTable | Effect::EndsTable) && there {
        end_table(witness, witness.cell(cells, 0), effect == Effect::MakesTable)?;
        let left = witness.area.check(witness.member.participant).map_err(text)?.objects;
        ensure(left == before, || format!("{left} objects without the table, not {before}"))?;
        counted = before + 1;
    }
    let mut known = known.to_vec();
    let mut lost = 0;
    let outcome = match effect {
        Effect::Allocates if counted == before + 1 => {
            lost = 1;
            "object lost"
        }
        Effect::Frees if counted == before - 1 => {
            let (pointer, _) = known.pop().ok_or("nothing to free")?;
            ensure(witness.area.size_of_object(pointer).is_err(), || {
                "another object was freed than the one meant".into()
            })?;
            "after"
        }
        // Once the page lock was used nothing is half freed: a word names a whole object or none.
        Effect::Publishes(size) | Effect::Unlinks(size) | Effect::UnlinksUnsettled(size)
            if counted == before + u64::from(published.is_valid()) =>
        {
            if published.is_valid() {
                known.push((published, filled(size)));
            }
            let done = published.is_valid() == matches!(effect, Effect::Publishes(_));
            if done { "after" } else { "before" }
        }
        Effect::MakesTable if counted == before + 1 => "after",
        Effect::EndsTable if counted == before + 1 => "before",
        Effect::EndsTable | Effect::Keeps if counted == before => "after",
        Effect::Allocates | Effect::Frees | Effect::MakesTable if counted == before => "before",
        _ => {
            return Err(format!("{counted} objects, before: {before}, the word: {published:?}"));
        }
    };
    witness.works()?;
    for object in &known {
        witness.is_whole(*object)?;
    }
    for (pointer, _) in known {
        witness.free(pointer)?;
    }
    witness.free(cells)?;
    witness.is_empty(lost)?;
    witness.works()?;
    witness.is_empty(lost)?;
    witness.end()?;
    Ok(outcome)
}

/// Destroys the table that a cell names; if it is `whole`, it works before that. If not, whoever
/// began to destroy it may have got as far as to say so in it.
fn end_table(kit: &Kit, cell: &AtomicDsaPointer, whole: bool) -> Result<(), String> {
    let handle = TableHandle(cell.load(Ordering::Acquire));
    match Typed::attach(*kit, handle) {
        Ok(user) => {
            if whole {
                user.check().map_err(text)?;
                ensure(user.contents()?.is_empty(), || "a new table is not empty".into())?;
                works(&user)?;
            }
            // SAFETY: leaked, and the copy is not used any more.
            let table = unsafe { std::ptr::read(user.session.table()) };
            // SAFETY: nobody else lives.
            unsafe { table.destroy_from(kit.heap, cell) }.map_err(text)
        }
        Err(Error::Destroyed) if !whole => {
            crate::explore::mark("half destroyed");
            // SAFETY: nothing is left of the table but its own memory, which the cell names.
            unsafe { kit.heap.free_from(cell) }.map_err(text)
        }
        Err(error) => Err(text(error)),
    }
}

/// How many objects of that size `who` allocates until `grown` says so of the reports before and
/// after the last of them.
pub(super) fn allocations_until(
    who: &Kit,
    size: usize,
    grown: fn(&Report, &Report) -> bool,
) -> usize {
    let report = || who.area.check(who.member.participant).expect("is in order");
    let found = rehearse(|| {
        let (mut before, mut count) = (report(), 0);
        loop {
            who.allocate(size);
            count += 1;
            let after = report();
            // The first two of a class are special cases.
            if count > 2 && grown(&before, &after) {
                return count;
            }
            before = after;
        }
    });
    found as usize
}

/// The victim is about to allocate an object for which something must be made first.
pub(super) fn at_the_brink(
    objects: Objects,
    size: usize,
    grown: fn(&Report, &Report) -> bool,
) -> Objects {
    let victim = objects.victim();
    let count = allocations_until(&victim, size, grown);
    objects.with(victim, size, count - 1)
}

pub(super) fn more_slabs(before: &Report, after: &Report) -> bool {
    after.slabs > before.slabs && after.segments == before.segments
}

pub(super) fn more_segments(before: &Report, after: &Report) -> bool {
    after.segments > before.segments
}
