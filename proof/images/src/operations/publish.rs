//! Memory and the word that names it, together: publishing, giving back what a word names, boxes;
//! tables that are made into a word and destroyed from it; and other forms of allocating.

use std::alloc::Layout;

use dsa_core::{AtomicDsaPointer, DsaBox, Flags};

use super::area_kit::{Kit, fill};
use super::objects::{Effect, Objects, at_the_brink, more_segments, objects};
use super::table_kit::{Typed, User, Values, fill as fill_table, params};
use crate::case::{Case, Operation};
use crate::member::ANCESTOR;
use crate::system;

const CASES: [Operation; 18] = [
    Operation {
        name: "free-from-small",
        must: &["before", "after", "holds a lock of the area", "taken over"],
        make: free_from_small,
    },
    Operation {
        name: "free-from-remote",
        must: &["before", "after", "holds a lock of the area"],
        make: free_from_remote,
    },
    Operation {
        name: "free-from-large",
        must: &["before", "after", "holds a lock of the area"],
        make: free_from_large,
    },
    Operation {
        name: "publish-and-free-from",
        must: &["before", "after", "holds a lock of the area"],
        make: publish_and_free_from,
    },
    Operation { name: "publish-small", must: &["before", "after"], make: publish_small },
    Operation {
        name: "publish-large",
        must: &["before", "after", "holds a lock of the area"],
        make: publish_large,
    },
    Operation { name: "settle", must: &["before", "object lost"], make: settle },
    Operation { name: "box-drop", must: &["after"], make: box_drop },
    Operation { name: "allocate-zeroed", must: &["object lost"], make: zeroed },
    Operation {
        name: "allocate-aligned",
        must: &["before", "object lost", "holds a lock of the area"],
        make: aligned,
    },
    Operation {
        name: "allocate-huge",
        must: &[
            "before",
            "object lost",
            "an object is named",
            "an object is sized",
            "holds the control lock and another",
        ],
        make: huge,
    },
    Operation {
        name: "allocate-whole-unit",
        must: &["before", "object lost", "an object is sized"],
        make: whole_unit,
    },
    Operation { name: "allocate-beyond-limit", must: &["after"], make: beyond_limit },
    Operation { name: "area-pin", must: &["after", "holds the control lock"], make: pin },
    Operation {
        name: "table-create",
        must: &["before", "object lost", "holds a lock of the area"],
        make: create,
    },
    Operation {
        name: "table-create-into",
        must: &["before", "after", "holds a lock of the area", "taken over"],
        make: create_into,
    },
    Operation {
        name: "table-destroy",
        must: &["before", "after", "holds a lock of the area", "taken over"],
        make: destroy,
    },
    Operation {
        name: "table-destroy-from",
        must: &["before", "after", "holds a lock of the area", "taken over"],
        make: destroy_from,
    },
];

pub(super) const ALL: &[Operation] = &CASES;

/// Somebody has put an object of that size into the first cell.
fn linked(objects: Objects, who: Kit, size: usize) -> Objects {
    let cell = who.cell(objects.cells, 0);
    let init = |at| fill(at, size);
    who.heap.allocate_into(size, 8, Flags::empty(), cell, init).expect("allocates");
    objects
}

fn freeing(name: &'static str, size: usize, objects: Objects) -> Case {
    let cells = objects.cells;
    objects.case(name, Effect::Unlinks(size), move |v| {
        // SAFETY: nobody uses the object, nor the word for something else.
        unsafe { v.heap.free_from(v.cell(cells, 0)) }.expect("frees");
    })
}

fn free_from_small(rescuers: usize) -> Case {
    let objects = objects(rescuers).warm(64);
    let victim = objects.victim();
    freeing("free-from-small", 64, linked(objects, victim, 64))
}

fn free_from_remote(rescuers: usize) -> Case {
    let objects = objects(rescuers).warm(64);
    let witness = objects.witness();
    freeing("free-from-remote", 64, linked(objects, witness, 64))
}

fn free_from_large(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let victim = objects.victim();
    freeing("free-from-large", 20_000, linked(objects, victim, 20_000))
}

/// One after the other, with the same word.
fn publish_and_free_from(rescuers: usize) -> Case {
    let objects = objects(rescuers).warm(64);
    let cells = objects.cells;
    objects.case("publish-and-free-from", Effect::Publishes(64), move |v| {
        let cell = v.cell(cells, 0);
        let init = |at| fill(at, 64);
        v.heap.allocate_into(64, 8, Flags::empty(), cell, init).expect("allocates");
        // SAFETY: as above.
        unsafe { v.heap.free_from(cell) }.expect("frees");
        v.heap.allocate_into(64, 8, Flags::ZERO, cell, init).expect("allocates");
    })
}

fn publishing(name: &'static str, size: usize, objects: Objects) -> Case {
    let cells = objects.cells;
    objects.case(name, Effect::Publishes(size), move |v| {
        let pointer = v.heap.allocate_unpublished(size, 8, Flags::ZERO).expect("allocates");
        fill(v.area.resolve(pointer).expect("is mapped"), size);
        v.heap.publish(pointer, v.cell(cells, 0)).expect("publishes");
    })
}

fn publish_small(rescuers: usize) -> Case {
    publishing("publish-small", 64, objects(rescuers).warm(64))
}

fn publish_large(rescuers: usize) -> Case {
    publishing("publish-large", 20_000, objects(rescuers))
}

/// An unpublished object becomes its caller's.
fn settle(rescuers: usize) -> Case {
    objects(rescuers).warm(64).case("settle", Effect::Allocates, |v| {
        let pointer = v.heap.allocate_unpublished(64, 8, Flags::empty()).expect("allocates");
        v.heap.settle(pointer).expect("is an object");
    })
}

fn box_drop(rescuers: usize) -> Case {
    objects(rescuers).warm(64).case("box-drop", Effect::Keeps, |v| {
        let mut boxed = DsaBox::new(v.heap, &[1_u64; 8]).expect("allocates");
        boxed.set(&[2; 8]).expect("is an object");
        assert_eq!(boxed.get(), Ok([2; 8]));
        drop(boxed);
    })
}

fn zeroed(rescuers: usize) -> Case {
    objects(rescuers).warm(64).case("allocate-zeroed", Effect::Allocates, |v| {
        v.heap.allocate_extended(64, Flags::ZERO).expect("allocates");
    })
}

fn aligned(rescuers: usize) -> Case {
    objects(rescuers).warm(64).case("allocate-aligned", Effect::Allocates, |v| {
        let layout = Layout::from_size_align(100, 4096).expect("is a layout");
        v.heap.allocate_layout(layout).expect("allocates");
    })
}

/// Too long for any segment: it gets one of its own.
fn huge(rescuers: usize) -> Case {
    objects(rescuers).case("allocate-huge", Effect::Allocates, |v| {
        v.heap.allocate_extended(3 << 20, Flags::HUGE).expect("allocates");
    })
}

/// A class in earnest use: its slabs are whole units from then on.
fn whole_unit(rescuers: usize) -> Case {
    let objects = at_the_brink(rescuers, 512, |before, after| {
        more_segments(before, after) && after.slabs > before.slabs && before.objects > 60
    });
    objects.case("allocate-whole-unit", Effect::Allocates, |v| {
        v.heap.allocate(512).expect("allocates");
    })
}

/// Neither error nor invalid pointer leaves anything behind.
fn beyond_limit(rescuers: usize) -> Case {
    let objects = objects(rescuers).warm(64);
    objects.victim().area.set_size_limit(64 << 10);
    objects.case("allocate-beyond-limit", Effect::Keeps, |v| {
        assert!(v.heap.allocate(100_000).is_err());
        let pointer = v.heap.allocate_extended(100_000, Flags::NO_OOM).expect("is told so");
        assert!(!pointer.is_valid());
        v.area.set_size_limit(u64::MAX);
    })
}

/// Unpinned in between: whoever comes when all are dead finds an area or none.
fn pin(rescuers: usize) -> Case {
    let case = objects(rescuers).case("area-pin", Effect::Keeps, |v| {
        v.area.unpin().expect("unpins");
        v.area.pin().expect("pins");
    });
    Case { heir: None, ..case }
}

fn create(rescuers: usize) -> Case {
    objects(rescuers).case("table-create", Effect::Allocates, |v| {
        Typed::create(*v);
    })
}

fn create_into(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let cells = objects.cells;
    objects.case("table-create-into", Effect::MakesTable, move |v| {
        let table = Values::create_into(v.area, v.heap, &params(), v.cell(cells, 0));
        table.expect("creates").detach();
    })
}

/// The victim attached to a table that the first cell names, in which somebody died.
fn table_to_destroy(rescuers: usize) -> (Objects, Typed, &'static AtomicDsaPointer) {
    let objects = objects(rescuers);
    let (witness, victim) = (objects.witness(), objects.victim());
    let cell: &AtomicDsaPointer = victim.cell(objects.cells, 0);
    let table = Values::create_into(witness.area, witness.heap, &params(), cell).expect("creates");
    let user = Typed::attach(victim, table.handle()).expect("attaches");
    fill_table(&user, 0..30);
    let dead = Typed::attach(Kit::start(ANCESTOR, &witness), user.handle()).expect("attaches");
    std::mem::forget(dead.session.find_exclusive(&4).expect("finds"));
    system::kill(ANCESTOR);
    (objects, user, cell)
}

fn destroy(rescuers: usize) -> Case {
    let (objects, user, _) = table_to_destroy(rescuers);
    objects.case("table-destroy", Effect::EndsTable, move |_| {
        user.destroy().expect("destroys");
    })
}

fn destroy_from(rescuers: usize) -> Case {
    let (objects, user, cell) = table_to_destroy(rescuers);
    objects.case("table-destroy-from", Effect::EndsTable, move |v| {
        // SAFETY: leaked, and the copy is not used any more.
        let table = unsafe { std::ptr::read(user.session.table()) };
        // SAFETY: nobody uses the table.
        unsafe { table.destroy_from(v.heap, cell) }.expect("destroys");
    })
}
