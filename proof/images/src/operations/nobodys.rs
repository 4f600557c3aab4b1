//! Slabs of nobody: letting go of a full one, freeing in it, taking it, and giving up one's own.
//!
//! Objects of 512 bytes are seven a page, of 64 bytes 63; a heap lets go of a slab when it needs
//! one object more. The first slabs that a heap has of a class are of one page.

use dsa_core::Flags;

use super::area_kit::fill;
use super::objects::{Effect, Objects, objects};
use crate::case::{Case, Operation};

const SEVEN: usize = 512;
const MANY: usize = 64;

const CASES: [Operation; 8] = [
    Operation { name: "let-go", must: &["before", "object lost"], make: let_go },
    Operation {
        name: "free-gives-room",
        must: &["before", "after", "holds a lock of the area"],
        make: free_gives_room,
    },
    Operation {
        name: "free-last-of-slab",
        must: &["before", "after", "holds a lock of the area"],
        make: free_last_of_slab,
    },
    Operation {
        name: "free-from-last-of-slab",
        must: &["before", "after", "holds a lock of the area"],
        make: free_from_last_of_slab,
    },
    Operation {
        name: "free-takes-back",
        must: &["before", "after", "holds a lock of the area"],
        make: free_takes_back,
    },
    Operation {
        name: "free-gives-up",
        must: &["after", "holds a lock of the area"],
        make: free_gives_up,
    },
    Operation {
        name: "allocate-in-nobodys",
        must: &["before", "object lost", "holds a lock of the area"],
        make: allocate_in_nobodys,
    },
    Operation {
        name: "publish-in-nobodys",
        must: &["before", "after", "holds a lock of the area"],
        make: publish_in_nobodys,
    },
];

pub(super) const ALL: &[Operation] = &CASES;

/// Two slabs of the witness's that are nobody's, and one that is its.
fn two_let_go(rescuers: usize) -> Objects {
    let objects = objects(rescuers);
    let witness = objects.witness();
    objects.with(witness, SEVEN, 16)
}

/// Of a slab for which the victim has another one with room.
fn let_go(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let victim = objects.victim();
    // The first slab is let go, and taken back; the second one is full.
    let objects = objects.with(victim, MANY, 63 * 2).free_some(victim, 0..8);
    objects.case("let-go", Effect::Allocates, |v| {
        v.allocate(MANY);
    })
}

/// The first free object of a slab: it goes into the list.
fn free_gives_room(rescuers: usize) -> Case {
    let objects = two_let_go(rescuers).aim(0);
    let pointer = objects.last();
    objects.case("free-gives-room", Effect::Frees, move |v| v.free(pointer).expect("is an object"))
}

/// Of a slab that is in the list, after another one.
fn last_of_slab(rescuers: usize) -> Objects {
    let objects = two_let_go(rescuers);
    let witness = objects.witness();
    objects.free_some(witness, 1..8).aim(0)
}

fn free_last_of_slab(rescuers: usize) -> Case {
    let objects = last_of_slab(rescuers);
    let pointer = objects.last();
    objects
        .case("free-last-of-slab", Effect::Frees, move |v| v.free(pointer).expect("is an object"))
}

/// The same, by the word that names it.
fn free_from_last_of_slab(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let (witness, cells) = (objects.witness(), objects.cells);
    let cell = witness.cell(cells, 0);
    let heap = witness.heap;
    heap.allocate_into(SEVEN, 8, Flags::empty(), cell, |at| fill(at, SEVEN)).expect("allocates");
    // Of the slab with that object nothing else is left.
    let objects = objects.with(witness, SEVEN, 15).free_some(witness, 0..7);
    objects.case("free-from-last-of-slab", Effect::Unlinks(SEVEN), move |v| {
        // SAFETY: nobody uses the object, nor the word for something else.
        unsafe { v.heap.free_from(v.cell(cells, 0)) }.expect("names an object");
    })
}

/// As much room as is worth it, in a slab that was the victim's.
fn free_takes_back(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let victim = objects.victim();
    let objects = objects.with(victim, MANY, 64).free_some(victim, 0..7).aim(0);
    let pointer = objects.last();
    objects.case("free-takes-back", Effect::Frees, move |v| v.free(pointer).expect("is an object"))
}

/// The last object of a slab of the victim's that isn't the one it allocates from, when it
/// remembers as many free objects as it can.
fn free_gives_up(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let victim = objects.victim();
    let objects = objects.with(victim, MANY, 63 * 2);
    let objects = objects.free_some(victim, 63..103).free_some(victim, 1..63).aim(0);
    let pointer = objects.last();
    objects.case("free-gives-up", Effect::Frees, move |v| v.free(pointer).expect("is an object"))
}

/// From the first of two slabs with room.
fn allocate_in_nobodys(rescuers: usize) -> Case {
    let objects = two_let_go(rescuers);
    let witness = objects.witness();
    let objects = objects.free_some(witness, 0..1).free_some(witness, 6..7);
    objects.case("allocate-in-nobodys", Effect::Allocates, |v| {
        v.allocate(SEVEN);
    })
}

/// What the victim has not yet published in a slab that it has let go.
fn publish_in_nobodys(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let (victim, cells) = (objects.victim(), objects.cells);
    let heap = victim.heap;
    let pointer = heap.allocate_unpublished(SEVEN, 8, Flags::empty()).expect("allocates");
    fill(victim.area.resolve(pointer).expect("is mapped"), SEVEN);
    let objects = objects.with(victim, SEVEN, 7);
    objects.case("publish-in-nobodys", Effect::Publishes(SEVEN), move |v| {
        v.heap.publish(pointer, v.cell(cells, 0)).expect("publishes");
    })
}
