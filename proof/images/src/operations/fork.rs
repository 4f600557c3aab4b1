//! A process forks without exec and is killed; the child goes on.
//!
//! At each point of an operation another thread of the process may have forked: the child has a
//! copy of all that the process knew, locks of its own memory held by threads that it doesn't have
//! among it, but neither its place in the namespace nor its participants. Whatever it tries is
//! refused without a store to shared memory, its guards and handles release nothing, and what the
//! parent left is recovered as if there were no child.

use std::cell::Cell;

use dsm_core::lock::Patience;

use super::area_kit::Kit;
use super::objects::{Effect, objects};
use super::table_kit::{self, Typed, fill, tables, value};
use super::{lock, segment};
use crate::case::{Case, Operation};
use crate::member::{Member, ensure, leak};
use crate::process::waited;
use crate::stepper::{between, refusing};

const FORKED: &str = "a child is forked";

const CASES: [Operation; 6] = [
    Operation { name: "fork-segment", must: &[FORKED], make: in_segment },
    Operation { name: "fork-lock", must: &[FORKED, "holds a lock of the segment"], make: in_lock },
    Operation {
        name: "fork-allocate",
        must: &[FORKED, "before", "object lost", "holds the control lock and another"],
        make: in_allocate,
    },
    Operation { name: "fork-insert", must: &[FORKED, "before", "after"], make: in_insert },
    Operation { name: "fork-guard", must: &[FORKED, "poisoned"], make: with_guard },
    Operation { name: "fork-lock-guard", must: &[FORKED], make: with_lock_guard },
];

pub(super) const ALL: &[Operation] = &CASES;

/// The same case, with a child that tries everything before the witness recovers.
fn forked(case: Case, parent: Member, child: impl Fn() + 'static) -> Case {
    let Case { recover, .. } = case;
    let recover = move |who, order| {
        if who == 0 {
            parent.fork();
            let before = waited();
            refusing(|| {
                with_namespace(&parent);
                child();
            });
            ensure(waited() == before, || "a child waits for a thread that it has not".into())?;
        }
        recover(who, order)
    };
    Case { recover: Box::new(recover), ..case }
}

fn with_namespace(child: &Member) {
    assert!(child.ns.create_object(4096, 4096).is_err());
    assert!(child.ns.create_segment(4096, 4096).is_err());
    assert!(child.ns.reap().is_err());
    assert!(child.ns.register(leak(Default::default())).is_err());
    assert!(child.participant.id().is_none());
}

fn with_area(kit: &Kit) {
    assert!(kit.heap.allocate(64).is_err());
    assert!(kit.heap.allocate(100_000).is_err());
    assert!(kit.heap.trim().is_err());
    assert!(kit.heap.maintain().is_err());
    assert!(kit.area.check(kit.member.participant).is_err());
    assert!(kit.area.pin().is_err());
}

fn with_table(user: &Typed) {
    let session = &user.session;
    assert!(session.insert(&3, value(3)).is_err());
    assert!(session.find_exclusive(&3).is_err());
    assert!(session.find(&3).is_err());
    assert!(session.delete(&3).is_err());
    assert!(session.scan_mut().next().is_err());
    assert!(session.clear().is_err());
}

fn in_segment(rescuers: usize) -> Case {
    let scene = segment::scene(rescuers);
    let parent = scene.victim;
    let mine = leak(parent.segment());
    let case = scene.traceless("fork-segment", move || {
        std::mem::forget(parent.ns.create_object(70_000, 4096).expect("creates"));
    });
    forked(case, parent, move || {
        assert!(parent.ns.attach_segment(mine.handle()).is_err());
        assert!(parent.ns.pin_segment(mine.handle()).is_err());
        assert!(parent.ns.find_mapping(mine.handle()).is_none());
        // SAFETY: the handle was leaked, and the copy is not used any more.
        drop(unsafe { std::ptr::read(mine) });
    })
}

fn in_lock(rescuers: usize) -> Case {
    let scene = lock::scene(rescuers);
    let parent = scene.victim;
    let case = scene.case("fork-lock", |victim| {
        victim.exclusive(Patience::Try, 7).map(|_| ()).expect("acquires");
    });
    forked(case, parent.member, move || {
        let participant = parent.member.participant;
        assert!(parent.lock().exclusive(participant, Patience::Try).is_err());
        assert!(parent.lock().shared(participant, Patience::Try).is_err());
    })
}

fn with_lock_guard(rescuers: usize) -> Case {
    let scene = lock::scene(rescuers);
    let parent = scene.victim;
    let held = leak(Cell::new(None));
    let case = scene.case("fork-lock-guard", |victim| {
        let guard = victim.lock().exclusive(victim.member.participant, Patience::Try);
        held.set(Some(guard.expect("acquires")));
        between(FORKED);
        drop(held.take());
        victim.exclusive(Patience::Try, 7).map(|_| ()).expect("acquires");
    });
    forked(case, parent.member, || drop(held.take()))
}

fn in_allocate(rescuers: usize) -> Case {
    let objects = objects(rescuers);
    let parent = objects.victim();
    let case = objects.case("fork-allocate", Effect::Allocates, |v| {
        v.allocate(200_000);
    });
    forked(case, parent.member, move || {
        with_area(&parent);
        parent.detach();
    })
}

fn in_insert(rescuers: usize) -> Case {
    let tables = tables(rescuers, |user| fill(user, 0..9));
    let parent = tables.victim;
    let case = tables.inserting("fork-insert", 9);
    forked(case, parent.kit.member, move || {
        with_table(&parent);
        with_area(&parent.kit);
    })
}

/// The child drops a copy of a guard that its parent has.
fn with_guard(rescuers: usize) -> Case {
    let tables = tables(rescuers, |user| fill(user, 0..9));
    let parent = tables.victim;
    let held = leak(Cell::new(None));
    let operate = |user: &Typed| {
        held.set(user.session.find_exclusive(&3).expect("finds"));
        between(FORKED);
        drop(held.take());
    };
    let case = tables.case("fork-guard", table_kit::Effect::Guarded, operate, |_| {});
    forked(case, parent.kit.member, move || {
        drop(held.take());
        with_table(&parent);
    })
}
