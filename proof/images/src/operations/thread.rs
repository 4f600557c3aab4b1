//! A thread ends without its destructors while its process lives on.
//!
//! Nobody can kill a single thread: it ends where its own code says so, between two operations,
//! with whatever it has then. Those points are named; other members of its process and other
//! processes find it dead by its number and start time.

use dsa_core::Flags;
use dsm_core::lock::Patience;

use super::area_kit::fill;
use super::lock;
use super::objects::{Effect, objects};
use super::table_kit::{self, Typed, User, fill as fill_table, tables, value};
use crate::case::{Case, Operation};
use crate::explore::ENDS;
use crate::member::{Member, THREAD, text};
use crate::stepper::between;

const CASES: [Operation; 5] = [
    Operation {
        name: "thread-lock",
        must: &[ENDS, "after", "recovery found the lock of a dead owner"],
        make: with_lock,
    },
    Operation { name: "thread-table", must: &[ENDS, "poisoned", "after"], make: with_entry },
    Operation { name: "thread-scan", must: &[ENDS, "after", "poisoned"], make: in_scan },
    Operation { name: "thread-object", must: &[ENDS, "before", "after"], make: with_object },
    Operation { name: "thread-heap", must: &[ENDS, "object lost"], make: with_heap },
];

pub(super) const ALL: &[Operation] = &CASES;

/// The same case with the second thread of a process as its victim; in order 1 its process finds it
/// first.
fn of_thread(case: Case, process: Member) -> Case {
    let Case { mut mortals, recover, .. } = case;
    mortals[0] = THREAD;
    let recover = move |who, order| {
        if (who, order) == (0, 1) {
            process.ns.reap().map_err(text)?;
        }
        recover(who, order)
    };
    Case { mortals, recover: Box::new(recover), between: true, ..case }
}

fn with_lock(rescuers: usize) -> Case {
    let mut scene = lock::scene(rescuers);
    let process = scene.victim.member;
    scene.victim.member = process.second_thread();
    let case = scene.case("thread-lock", |thread| {
        let lock = thread.lock();
        let guard = lock.exclusive(thread.member.participant, Patience::Try).expect("acquires");
        between(ENDS);
        thread.word(0).store(7, dsm_core::sync::Ordering::Relaxed);
        between(ENDS);
        thread.word(1).store(7, dsm_core::sync::Ordering::Relaxed);
        between(ENDS);
        drop(guard);
        between(ENDS);
        let guard = lock.shared(thread.member.participant, Patience::Try).expect("acquires");
        between(ENDS);
        drop(guard);
    });
    of_thread(case, process)
}

fn tables_of_thread(rescuers: usize) -> (table_kit::Tables<Typed>, Member) {
    let mut tables = tables(rescuers, |user| fill_table(user, 0..10));
    let process = tables.victim.kit;
    let thread = process.second_thread();
    tables.victim = Typed::attach(thread, tables.victim.handle()).expect("attaches");
    (tables, process.member)
}

fn with_entry(rescuers: usize) -> Case {
    let (tables, process) = tables_of_thread(rescuers);
    let operate = |thread: &Typed| {
        let shared = thread.session.find(&3).expect("finds");
        between(ENDS);
        drop(shared);
        let mut guard = thread.session.find_exclusive(&3).expect("finds").expect("is there");
        between(ENDS);
        *guard = value(82);
        between(ENDS);
        drop(guard);
        between(ENDS);
    };
    let case = tables.case("thread-table", table_kit::Effect::Guarded, operate, |seen| {
        seen.insert(3, Some(value(82)));
    });
    of_thread(case, process)
}

fn in_scan(rescuers: usize) -> Case {
    let (tables, process) = tables_of_thread(rescuers);
    let operate = |thread: &Typed| {
        let mut scan = thread.session.scan();
        while scan.next().expect("goes on").is_some() {
            between(ENDS);
        }
        drop(scan);
        let mut scan = thread.session.scan_mut();
        while let Some(mut entry) = scan.next().expect("goes on") {
            if *entry.key() == 5 {
                *entry.value_mut() = value(83);
                between(ENDS);
            }
        }
    };
    let case = tables.case("thread-scan", table_kit::Effect::Guarded, operate, |seen| {
        seen.insert(5, Some(value(83)));
    });
    of_thread(case, process)
}

fn with_object(rescuers: usize) -> Case {
    let mut objects = objects(rescuers);
    let process = objects.scene.victim;
    objects.scene.victim = process.second_thread();
    let cells = objects.cells;
    let case = objects.case("thread-object", Effect::Publishes(64), move |thread| {
        let pointer = thread.heap.allocate_unpublished(64, 8, Flags::empty()).expect("allocates");
        between(ENDS);
        fill(thread.area.resolve(pointer).expect("is mapped"), 64);
        between(ENDS);
        thread.heap.publish(pointer, thread.cell(cells, 0)).expect("publishes");
        between(ENDS);
    });
    of_thread(case, process.member)
}

fn with_heap(rescuers: usize) -> Case {
    let mut objects = objects(rescuers);
    let process = objects.scene.victim;
    objects.scene.victim = process.second_thread();
    let case = objects.warm(64).case("thread-heap", Effect::Allocates, |thread| {
        thread.allocate(64);
        between(ENDS);
    });
    of_thread(case, process.member)
}
