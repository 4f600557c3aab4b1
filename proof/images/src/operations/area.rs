//! Allocating and freeing, and areas themselves.

use std::cell::RefCell;

use dsa_core::{AreaLocal, DsaPointer, Flags};

use super::area_kit::{A, Kit, fill, options};
use super::objects::{
    Effect, Objects, allocations_until, at_the_brink, more_segments, more_slabs, objects,
};
use crate::case::{Case, Operation};
use crate::member::{ANCESTOR, Member, leak};
use crate::system;

const CASES: [Operation; 27] = [
    Operation { name: "allocate-small", must: &["object lost"], make: allocate_small },
    Operation {
        name: "allocate-first",
        must: &["before", "object lost", "holds a lock of the area"],
        make: allocate_first,
    },
    Operation {
        name: "allocate-refill",
        must: &["before", "object lost", "holds a lock of the area"],
        make: allocate_refill,
    },
    Operation {
        name: "allocate-unit",
        must: &["before", "object lost", "holds a lock of the area"],
        make: allocate_unit,
    },
    Operation {
        name: "allocate-new-segment",
        must: &[
            "before",
            "object lost",
            "holds both locks of the area",
            "holds the control lock and another",
            "an object is named",
            "an object is sized",
        ],
        make: allocate_new_segment,
    },
    Operation {
        name: "allocate-large",
        must: &["before", "object lost", "holds a lock of the area"],
        make: allocate_large,
    },
    Operation {
        name: "allocate-large-new-segment",
        must: &[
            "before",
            "object lost",
            "holds the control lock and another",
            "an object is sized",
        ],
        make: allocate_large_new_segment,
    },
    Operation {
        name: "allocate-with-directory",
        must: &[
            "before",
            "object lost",
            "holds both locks of the area",
            "holds the control lock and another",
            "an object is named",
            "an object is sized",
            "a segment is half made or half removed",
        ],
        make: allocate_with_directory,
    },
    Operation {
        name: "allocate-large-kept",
        must: &["before", "object lost", "holds a lock of the area"],
        make: allocate_large_kept,
    },
    Operation {
        name: "allocate-instead-of-empty",
        must: &[
            "before",
            "object lost",
            "holds both locks of the area",
            "holds the control lock and another",
            "an object is removed",
            "an object is sized",
            "a segment is half made or half removed",
        ],
        make: allocate_instead_of_empty,
    },
    Operation { name: "free-local", must: &["after"], make: free_local },
    Operation { name: "free-remote", must: &["after"], make: free_remote },
    Operation {
        name: "free-large",
        must: &["before", "after", "holds a lock of the area"],
        make: free_large,
    },
    Operation {
        name: "free-last-and-keep",
        must: &["before", "after", "holds a lock of the area"],
        make: free_last_and_keep,
    },
    Operation {
        name: "free-last-of-segment",
        must: &["before", "after", "holds a lock of the area", "an object is removed"],
        make: free_last_of_segment,
    },
    Operation {
        name: "trim",
        must: &[
            "holds a lock of the area",
            "holds both locks of the area",
            "an object is removed",
            "holds the control lock and another",
        ],
        make: trim,
    },
    Operation {
        name: "adopt",
        must: &["holds a lock of the area", "holds both locks of the area"],
        make: adopt,
    },
    Operation {
        name: "allocate-into-small",
        must: &["before", "after"],
        make: allocate_into_small,
    },
    Operation {
        name: "allocate-into-refill",
        must: &["before", "after", "holds a lock of the area"],
        make: allocate_into_refill,
    },
    Operation {
        name: "allocate-into-large",
        must: &["before", "after", "holds a lock of the area"],
        make: allocate_into_large,
    },
    Operation {
        name: "allocate-into-new-segment",
        must: &["before", "after", "an object is sized", "holds the control lock and another"],
        make: allocate_into_new_segment,
    },
    Operation {
        name: "allocate-and-give-up",
        must: &["holds a lock of the area"],
        make: allocate_and_give_up,
    },
    Operation { name: "heap-release", must: &["after", "holds a lock of the area"], make: release },
    Operation {
        name: "area-create",
        must: &["holds the control lock", "an object is named", "an object is sized"],
        make: area_create,
    },
    Operation { name: "area-attach", must: &["holds the control lock"], make: area_attach },
    Operation { name: "area-detach", must: &["holds the control lock"], make: area_detach },
    Operation {
        name: "area-end",
        must: &[
            "holds the control lock",
            "an object is removed",
            "a segment is half made or half removed",
        ],
        make: area_end,
    },
];

pub(super) const ALL: &[Operation] = &CASES;

fn allocate(kit: &Kit, size: usize) {
    kit.allocate(size);
}

fn free(kit: &Kit, pointer: DsaPointer) {
    kit.free(pointer).expect("is an object");
}

fn allocate_small(rescuers: usize) -> Case {
    objects(rescuers).warm(64).case("allocate-small", Effect::Allocates, |v| allocate(v, 64))
}

fn allocate_first(rescuers: usize) -> Case {
    objects(rescuers).case("allocate-first", Effect::Allocates, |v| allocate(v, 100))
}

fn allocate_refill(rescuers: usize) -> Case {
    let objects = at_the_brink(objects(rescuers), 1024, more_slabs);
    objects.case("allocate-refill", Effect::Allocates, |v| allocate(v, 1024))
}

/// A class has as many slabs of a page as it gets: the next one is a unit, and there is one. Its
/// truth bytes lie before the objects.
fn allocate_unit(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let victim = objects.victim();
    // Two segments are too short to have a unit that is free as a whole; the third one isn't.
    let objects = objects.with(victim, 50_000, 3);
    let objects = at_the_brink(objects, 48, |before, after| {
        more_slabs(before, after) && before.free_pages >= after.free_pages + 16
    });
    objects.case("allocate-unit", Effect::Allocates, |v| allocate(v, 48))
}

fn allocate_new_segment(rescuers: usize) -> Case {
    let objects = at_the_brink(objects(rescuers), 1024, more_segments);
    objects.case("allocate-new-segment", Effect::Allocates, |v| allocate(v, 1024))
}

fn allocate_large(rescuers: usize) -> Case {
    objects(rescuers).case("allocate-large", Effect::Allocates, |v| allocate(v, 20_000))
}

fn allocate_large_new_segment(rescuers: usize) -> Case {
    let case = objects(rescuers);
    case.case("allocate-large-new-segment", Effect::Allocates, |v| allocate(v, 200_000))
}

/// In a segment that takes the last entry of the first part of the directory but for the one of the
/// segment with the second part, which is made first.
fn allocate_with_directory(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let victim = objects.victim();
    let objects = objects.with(victim, 100_000, 14);
    objects.case("allocate-with-directory", Effect::Allocates, |v| allocate(v, 100_000))
}

/// In a segment that is empty.
fn allocate_large_kept(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let victim = objects.victim();
    let objects = objects.with(victim, 200_000, 1).free_last(victim, 1);
    objects.case("allocate-large-kept", Effect::Allocates, |v| allocate(v, 190_000))
}

/// At the limit: what is empty, and too short, goes for what is needed.
fn allocate_instead_of_empty(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let victim = objects.victim();
    let objects = objects.with(victim, 200_000, 1).free_last(victim, 1);
    victim.area.set_size_limit(640 << 10).expect("is ours");
    objects.case("allocate-instead-of-empty", Effect::Allocates, |v| allocate(v, 400_000))
}

fn free_local(rescuers: usize) -> Case {
    let objects = objects(rescuers).warm(64);
    let pointer = objects.last();
    objects.case("free-local", Effect::Frees, move |v| free(v, pointer))
}

/// Of an object that the witness allocated, from a slab that is full.
fn free_remote(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let witness = objects.witness();
    let count = allocations_until(&witness, 1024, more_slabs);
    let objects = objects.with(witness, 1024, count - 1);
    let pointer = objects.last();
    objects.case("free-remote", Effect::Frees, move |v| free(v, pointer))
}

fn free_large(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let victim = objects.victim();
    let objects = objects.with(victim, 20_000, 2);
    let pointer = objects.last();
    objects.case("free-large", Effect::Frees, move |v| free(v, pointer))
}

/// The last object of a segment, which is kept.
fn free_last_and_keep(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let victim = objects.victim();
    let objects = objects.with(victim, 300_000, 1);
    let pointer = objects.last();
    objects.case("free-last-and-keep", Effect::Frees, move |v| free(v, pointer))
}

/// The last object of a segment, of which nothing is left but the segment, beside another one of
/// which that is true: one of them goes.
fn free_last_of_segment(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let victim = objects.victim();
    let objects = objects.with(victim, 100_000, 1).free_last(victim, 1).with(victim, 300_000, 1);
    let pointer = objects.last();
    objects.case("free-last-of-segment", Effect::Frees, move |v| free(v, pointer))
}

fn trim(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let victim = objects.victim();
    let objects = objects.with(victim, 100_000, 2).with(victim, 1024, 60).with(victim, 90_000, 1);
    let objects = objects.with(victim, 512, 100).free_last(victim, 160);
    objects.case("trim", Effect::Keeps, |v| {
        v.heap.trim().expect("trims");
    })
}

/// Taking over what a dead process left, its unpublished objects among it.
fn adopt(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let dead = Kit::start(ANCESTOR, &objects.witness());
    let objects =
        objects.with(dead, 64, 30).with(dead, 1024, 10).free_last(dead, 10).with(dead, 20_000, 1);
    for size in [64, 1024, 30_000] {
        dead.heap.allocate_unpublished(size, 8, Flags::empty()).expect("allocates");
    }
    system::kill(ANCESTOR);
    objects.case("adopt", Effect::Keeps, |v| v.heap.maintain().expect("maintains"))
}

fn publish(name: &'static str, size: usize, objects: Objects) -> Case {
    let cells = objects.cells;
    objects.case(name, Effect::Publishes(size), move |v| {
        let cell = v.cell(cells, 0);
        v.heap
            .allocate_into(size, 8, Flags::empty(), cell, |at| fill(at, size))
            .expect("allocates");
    })
}

fn allocate_into_small(rescuers: usize) -> Case {
    publish("allocate-into-small", 64, objects(rescuers).warm(64))
}

fn allocate_into_refill(rescuers: usize) -> Case {
    publish("allocate-into-refill", 1024, at_the_brink(objects(rescuers), 1024, more_slabs))
}

fn allocate_into_large(rescuers: usize) -> Case {
    publish("allocate-into-large", 20_000, objects(rescuers))
}

fn allocate_into_new_segment(rescuers: usize) -> Case {
    publish("allocate-into-new-segment", 200_000, objects(rescuers))
}

/// An unpublished object is given up again.
fn allocate_and_give_up(rescuers: usize) -> Case {
    objects(rescuers).warm(64).case("allocate-and-give-up", Effect::Keeps, |v| {
        for size in [64, 20_000] {
            let pointer = v.heap.allocate_unpublished(size, 8, Flags::empty()).expect("allocates");
            free(v, pointer);
        }
    })
}

/// Of slabs with objects and of one without.
fn release(rescuers: usize) -> Case {
    let objects = objects(rescuers).warm(64);
    let victim = objects.victim();
    let objects = objects.with(victim, 2000, 1).with(victim, 300, 1).free_last(victim, 1);
    let heap = RefCell::new(Some(objects.victim().heap));
    objects.case("heap-release", Effect::Keeps, move |_| {
        if let Some(heap) = heap.take() {
            // SAFETY: the heap was leaked, and its copy is not used any more.
            unsafe { std::ptr::read(heap) }.release().expect("releases");
        }
    })
}

/// A case about areas as such: nothing of the victim's is left.
fn areas(name: &'static str, rescuers: usize, operate: impl Fn(&Kit, &Member) + 'static) -> Case {
    let objects = objects(rescuers);
    let victim = Member::start(ANCESTOR);
    let mut case = objects.case(name, Effect::Keeps, move |kit| operate(kit, &victim));
    case.mortals[0] = ANCESTOR;
    case
}

/// The victim is a process that does not have the witness's area.
fn area_create(rescuers: usize) -> Case {
    areas("area-create", rescuers, |_, v| {
        leak(A::create(v.ns, &options(), leak(AreaLocal::new())).expect("creates"));
    })
}

fn area_attach(rescuers: usize) -> Case {
    areas("area-attach", rescuers, |kit, v| {
        Kit::attach(*v, kit.handle()).map(|_| ()).expect("attaches");
    })
}

fn area_detach(rescuers: usize) -> Case {
    let objects = objects(rescuers).warm(64);
    objects.case("area-detach", Effect::Keeps, |v| v.detach())
}

/// The last process lets go of an area of several segments.
fn area_end(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let own = Kit::create(objects.victim().member);
    for _ in 0..3 {
        own.allocate(100_000);
    }
    objects.case("area-end", Effect::Keeps, move |_| own.detach())
}
