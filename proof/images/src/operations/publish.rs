//! Memory and the word that names it, together: publishing, giving back what a word names, boxes;
//! tables that are made into a word and destroyed from it; and other forms of allocating.

use std::alloc::Layout;

use dsa_core::{AtomicDsaPointer, DsaBox, DsaPointer, Flags};
use dsm_core::sync::Ordering;

use super::area_kit::{Kit, fill};
use super::objects::{
    Effect, Objects, allocations_until, at_the_brink, more_segments, more_slabs, objects,
};
use super::table_kit::{Typed, User, Values, fill as fill_table, params};
use crate::case::{Case, Operation};
use crate::member::{ANCESTOR, ensure, text};
use crate::system;

const CASES: [Operation; 23] = [
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
        name: "free-from-segment",
        must: &["before", "after", "holds a lock of the area", "an object is removed"],
        make: free_from_segment,
    },
    Operation {
        name: "free-from-unsettled",
        must: &["before", "after", "holds a lock of the area", "taken over"],
        make: free_from_unsettled,
    },
    Operation {
        name: "free-from-unsettled-large",
        must: &["before", "after", "holds a lock of the area", "taken over"],
        make: free_from_unsettled_large,
    },
    Operation {
        name: "free-from-given-out-again",
        must: &["before", "after", "holds a lock of the area", "given out again"],
        make: free_from_given_out_again,
    },
    Operation {
        name: "allocate-after-free-from",
        must: &["before", "object lost", "holds a lock of the area"],
        make: allocate_after_free_from,
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
        must: &["before", "half destroyed", "after", "holds a lock of the area", "taken over"],
        make: destroy_from,
    },
];

pub(super) const ALL: &[Operation] = &CASES;

/// Puts an object of that size into the first cell.
fn link(cells: DsaPointer, who: Kit, size: usize) -> DsaPointer {
    let cell = who.cell(cells, 0);
    let init = |at| fill(at, size);
    who.heap.allocate_into(size, 8, Flags::empty(), cell, init).expect("allocates")
}

/// Frees what the first cell names.
fn unlink(who: &Kit, cells: DsaPointer) {
    // SAFETY: nobody uses the object, nor the word for something else.
    unsafe { who.heap.free_from(who.cell(cells, 0)) }.expect("frees");
}

fn freeing(name: &'static str, effect: Effect, objects: Objects) -> Case {
    let cells = objects.cells;
    objects.case(name, effect, move |v| unlink(v, cells))
}

fn free_from_small(rescuers: usize) -> Case {
    let objects = objects(rescuers).warm(8);
    link(objects.cells, objects.victim(), 8);
    freeing("free-from-small", Effect::Unlinks(8), objects)
}

fn free_from_remote(rescuers: usize) -> Case {
    let objects = objects(rescuers).warm(64);
    link(objects.cells, objects.witness(), 3000);
    freeing("free-from-remote", Effect::Unlinks(3000), objects)
}

fn free_from_large(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    link(objects.cells, objects.victim(), 20_000);
    freeing("free-from-large", Effect::Unlinks(20_000), objects)
}

/// With the run a segment goes that is one empty segment too many.
fn free_from_segment(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let victim = objects.victim();
    let objects = objects.with(victim, 100_000, 1).free_last(victim, 1);
    link(objects.cells, objects.victim(), 300_000);
    freeing("free-from-segment", Effect::Unlinks(300_000), objects)
}

/// Somebody has put an unpublished object into the first cell, and died.
fn unsettled(name: &'static str, rescuers: usize, size: usize) -> Case {
    let objects = objects(rescuers);
    let dead = Kit::start(ANCESTOR, &objects.witness());
    let pointer = dead.heap.allocate_unpublished(size, 8, Flags::empty()).expect("allocates");
    fill(dead.area.resolve(pointer).expect("is mapped"), size);
    dead.cell(objects.cells, 0).store(pointer, Ordering::Release);
    system::kill(ANCESTOR);
    freeing(name, Effect::UnlinksUnsettled(size), objects)
}

fn free_from_unsettled(rescuers: usize) -> Case {
    unsettled("free-from-unsettled", rescuers, 64)
}

fn free_from_unsettled_large(rescuers: usize) -> Case {
    unsettled("free-from-unsettled-large", rescuers, 20_000)
}

/// An object of the witness's slab, which is full but for it. In one more order of recovery the
/// witness, who takes no lock for that, is given it again before anybody has used the page lock,
/// and puts it into the same word.
fn free_from_given_out_again(rescuers: usize) -> Case {
    const SIZE: usize = 1024;
    let objects = objects(rescuers);
    let witness = objects.witness();
    let count = allocations_until(&witness, SIZE, more_slabs);
    let objects = objects.with(witness, SIZE, count - 2);
    let (object, cells) = (link(objects.cells, witness, SIZE), objects.cells);
    let case = freeing("free-from-given-out-again", Effect::Unlinks(SIZE), objects);
    let (recover, orders) = (case.recover, case.orders);
    let recover = move |who: usize, order: usize| {
        let cell = witness.cell(cells, 0);
        if (who, order) != (0, orders) || cell.load(Ordering::Acquire).is_valid() {
            return recover(who, order % orders);
        }
        let new = link(cells, witness, SIZE);
        if new == object {
            crate::explore::mark("given out again");
        }
        recover(who, 0)?;
        // Under the page lock, which recovers the dead one's change.
        witness.area.check(witness.member.participant).map_err(text)?;
        ensure(cell.load(Ordering::Acquire) == new, || "what was put there since is gone".into())
    };
    Case { recover: Box::new(recover), orders: orders + 1, ..case }
}

/// The change is over: whoever recovers from a later death must not repeat it.
fn allocate_after_free_from(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let victim = objects.victim();
    let freed = link(objects.cells, victim, 20_000);
    unlink(&victim, objects.cells);
    let objects = objects.with(victim, 20_000, 1);
    assert_eq!(objects.last(), freed, "the same pages are given out again");
    objects.case("allocate-after-free-from", Effect::Allocates, |v| {
        v.allocate(20_000);
    })
}

/// One after the other, with the same word.
fn publish_and_free_from(rescuers: usize) -> Case {
    let objects = objects(rescuers).warm(64);
    let cells = objects.cells;
    objects.case("publish-and-free-from", Effect::Publishes(64), move |v| {
        let cell = v.cell(cells, 0);
        let init = |at| fill(at, 64);
        v.heap.allocate_into(64, 8, Flags::empty(), cell, init).expect("allocates");
        unlink(v, cells);
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
    let objects = at_the_brink(objects(rescuers), 512, |before, after| {
        more_segments(before, after) && after.slabs > before.slabs && before.objects > 60
    });
    objects.case("allocate-whole-unit", Effect::Allocates, |v| {
        v.heap.allocate(512).expect("allocates");
    })
}

/// Neither error nor invalid pointer leaves anything behind.
fn beyond_limit(rescuers: usize) -> Case {
    let objects = objects(rescuers).warm(64);
    objects.victim().area.set_size_limit(64 << 10).expect("is ours");
    objects.case("allocate-beyond-limit", Effect::Keeps, |v| {
        assert!(v.heap.allocate(100_000).is_err());
        let pointer = v.heap.allocate_extended(100_000, Flags::NO_OOM).expect("is told so");
        assert!(!pointer.is_valid());
        v.area.set_size_limit(u64::MAX).expect("is ours");
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
    fill_table(&user, 0..50);
    assert!(user.session.stats().expect("is in order").allocations > 2, "more than the table");
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
