//! Death at every step of every operation.
//!
//! Each case prepares a table, lets one simulated process die after the first, second, third ...
//! step of an operation, and another one look: the table passes its check, holds what it held
//! before the operation or after it (or, where a guard was live, a poisoned entry), and nothing is
//! leaked. Then the same with the recovering process dying at every step too.

use std::collections::BTreeMap;
use std::vec::Vec;

use dsa_core::{AtomicDsaPointer, DsaPointer};
use dsm_core::sync::Ordering;

use crate::layout::FIRST_ENTRIES;
use crate::testing::{Process, TestStore, World};
use crate::{Allocator, Error, Params, Session, Table, TableHandle};

type Small = Table<u64, [u64; 3], TestStore<'static>>;
type Seen = BTreeMap<u64, Option<u64>>;

fn value(key: u64) -> [u64; 3] {
    [key, !key, key * 3]
}

/// What the table holds; `None` for a poisoned value.
fn contents(session: &Here<'_>) -> Seen {
    let mut seen = Seen::new();
    let mut scan = session.scan();
    while let Some(entry) = scan.next().unwrap() {
        let value = entry.value().ok().map(|v| v[0]);
        assert_eq!(seen.insert(*entry.key(), value), None);
    }
    seen
}

type Here<'s> = Session<'s, u64, [u64; 3], TestStore<'static>>;

struct Case<'a> {
    prepare: &'a dyn Fn(&Here<'_>),
    operate: &'a dyn Fn(&Here<'_>),
    /// Whether these contents may be left, given those before and after.
    allowed: &'a dyn Fn(&Seen, &Seen, &Seen) -> bool,
}

fn applied_or_not(before: &Seen, after: &Seen, now: &Seen) -> bool {
    now == before || now == after
}

fn attach(world: &World, process: &Process, table: &Small, params: &Params) -> Small {
    // SAFETY: the table outlives the test.
    unsafe { Small::attach(world.store(process), table.handle(), params) }.unwrap()
}

/// What the operation does when nobody dies.
fn in_peace(case: &Case<'_>) -> Seen {
    let world = World::with_pool(256 << 10);
    let process = world.process();
    let params = Params { partitions: 1, ..Params::default() };
    let table = Small::create(world.store(&process), process.heap, &params).unwrap();
    let session = table.bind(process.heap).unwrap();
    (case.prepare)(&session);
    (case.operate)(&session);
    contents(&session)
}

/// How many steps the operation takes; dies at each.
fn steps_of(case: &Case<'_>, after: &Seen) -> usize {
    let mut steps = 0;
    while run(case, after, steps, None).0 {
        steps += 1;
    }
    steps
}

/// One run: the operation dies at `first`, its recovery at `second`. Returns whether they did.
fn run(case: &Case<'_>, after: &Seen, first: usize, second: Option<usize>) -> (bool, bool) {
    let world = World::with_pool(256 << 10);
    let (witness, victim, reaper) = (world.process(), world.process(), world.process());
    let params = Params { partitions: 1, ..Params::default() };
    let table = Small::create(world.store(&witness), witness.heap, &params).unwrap();
    let session = table.bind(witness.heap).unwrap();
    (case.prepare)(&session);
    let before = contents(&session);
    let other = attach(&world, &victim, &table, &params);
    let died = victim.run_until(first, || (case.operate)(&other.bind(victim.heap).unwrap()));
    let mut died_too = false;
    if let Some(second) = second {
        let other = attach(&world, &reaper, &table, &params);
        died_too = reaper.run_until(second, || {
            let _ = other.bind(reaper.heap).unwrap().delete(&u64::MAX).unwrap();
        });
    }
    let report = session.check().unwrap_or_else(|e| panic!("{first} {second:?}: {e}"));
    let now = contents(&session);
    assert_eq!(report.stats.allocations, world.pool.live() as u64, "leak: {first} {second:?}");
    assert_eq!(report.poisoned, now.values().filter(|v| v.is_none()).count() as u64);
    assert!((case.allowed)(&before, after, &now), "{first} {second:?}: {now:?}");
    if !died {
        assert_eq!(now, *after);
    }
    // And it still works.
    for key in 1_000_000..1_000_020 {
        assert_eq!(session.insert(&key, value(key)).unwrap(), None);
    }
    for key in before.keys() {
        let _ = session.delete(key).unwrap();
    }
    session.check().unwrap();
    (died, died_too)
}

fn at_every_step(case: &Case<'_>, least: usize) {
    let after = in_peace(case);
    let steps = steps_of(case, &after);
    assert!(steps >= least, "only {steps} steps");
    // Of the second deaths a share, where all of them take minutes.
    #[cfg(not(loom))]
    let apart = steps / testkit::rounds(steps as u64) as usize;
    #[cfg(loom)]
    let apart = 1;
    for first in (0..steps).step_by(apart) {
        let mut second = 0;
        while run(case, &after, first, Some(second)).1 {
            second += 1;
        }
    }
}

fn fill(session: &Here<'_>, keys: core::ops::Range<u64>) {
    for key in keys {
        session.insert(&key, value(key)).unwrap();
    }
}

#[test]
fn insert() {
    // Into an empty table.
    let case = Case {
        prepare: &|_| {},
        operate: &|s| assert_eq!(s.insert(&5, value(5)).unwrap(), None),
        allowed: &applied_or_not,
    };
    at_every_step(&case, 6);
    // Past the first entries: with a chunk.
    let case = Case {
        prepare: &|s| fill(s, 0..FIRST_ENTRIES as u64),
        operate: &|s| assert_eq!(s.insert(&55, value(55)).unwrap(), None),
        allowed: &applied_or_not,
    };
    at_every_step(&case, 10);
    // From the middle, and from the free list.
    let case = Case {
        prepare: &|s| fill(s, 0..5),
        operate: &|s| assert_eq!(s.insert(&5, value(5)).unwrap(), None),
        allowed: &applied_or_not,
    };
    at_every_step(&case, 6);
    let case = Case {
        prepare: &|s| {
            fill(s, 0..10);
            for key in [3, 7] {
                assert!(s.delete(&key).unwrap());
            }
        },
        operate: &|s| assert_eq!(s.insert(&55, value(55)).unwrap(), None),
        allowed: &applied_or_not,
    };
    at_every_step(&case, 6);
}

#[test]
fn insert_with_growth() {
    // Look for the insertions that double, split, deepen: those that change the allocations.
    let world = World::with_pool(256 << 10);
    let process = world.process();
    let params = Params { partitions: 1, ..Params::default() };
    let table = Small::create(world.store(&process), process.heap, &params).unwrap();
    let session = table.bind(process.heap).unwrap();
    let mut changes = Vec::new();
    let mut before = session.stats().unwrap();
    for key in 0..4000 {
        session.insert(&key, value(key)).unwrap();
        let now = session.stats().unwrap();
        if (now.segments, now.directory) != (before.segments, before.directory)
            || (now.slots != before.slots && changes.len() < 2)
        {
            changes.push((key, now.segments, now.directory));
        }
        before = now;
    }
    assert!(changes.len() >= 5, "{changes:?}");
    assert!(changes.iter().any(|c| c.2 == 8), "{changes:?}");
    for (key, _, _) in changes.iter().filter(|c| c.0 < 2500) {
        let case = Case {
            prepare: &|s| fill(s, 0..*key),
            operate: &|s| assert_eq!(s.insert(key, value(*key)).unwrap(), None),
            allowed: &applied_or_not,
        };
        let after = in_peace(&case);
        let steps = steps_of(&case, &after);
        assert!(steps > 12, "only {steps} steps for {key}");
        for first in 0..steps {
            // Recovery of every fourth, at every step.
            let mut second = 0;
            while first % 4 == 3 && run(&case, &after, first, Some(second)).1 {
                second += 1;
            }
        }
    }
}

#[test]
fn creating_and_destroying() {
    let word = AtomicDsaPointer::default();
    let params = Params { partitions: 2, ..Params::default() };
    for destroy in [false, true] {
        let mut outcomes = [0; 3];
        for steps in 0.. {
            let world = World::with_pool(256 << 10);
            let (witness, victim) = (world.process(), world.process());
            word.store(DsaPointer::INVALID, Ordering::Relaxed);
            let create = |process: &Process| {
                let store = world.store(process);
                Small::create_into(store, process.heap, &params, &word).unwrap()
            };
            if destroy {
                let table = create(&witness);
                fill(&table.bind(witness.heap).unwrap(), 0..100);
            }
            let died = victim.run_until(steps, || {
                if destroy {
                    let handle = TableHandle(word.load(Ordering::Relaxed));
                    // SAFETY: there is one.
                    let table = unsafe { Small::attach(world.store(&victim), handle, &params) };
                    // SAFETY: nobody else uses it.
                    unsafe { table.unwrap().destroy_from(victim.heap, &word) }.unwrap();
                } else {
                    create(&victim);
                }
            });
            witness.heap.maintain();
            let handle = TableHandle(word.load(Ordering::Relaxed));
            if handle.0.is_valid() {
                // SAFETY: the word names a table, if anything.
                match unsafe { Small::attach(world.store(&witness), handle, &params) } {
                    Ok(table) => {
                        outcomes[0] += 1;
                        let report = table.bind(witness.heap).unwrap().check().unwrap();
                        assert_eq!(report.stats.allocations, world.pool.live() as u64);
                        // SAFETY: nobody else uses it.
                        unsafe { table.destroy_from(witness.heap, &word) }.unwrap();
                    }
                    Err(Error::Destroyed) => {
                        outcomes[1] += 1;
                        assert_eq!(world.pool.live(), 1);
                        // SAFETY: as above.
                        unsafe { witness.heap.free_from(&word) }.unwrap();
                    }
                    Err(error) => panic!("{error}"),
                }
            } else {
                outcomes[2] += 1;
            }
            assert!(!word.load(Ordering::Relaxed).is_valid());
            assert_eq!(world.pool.live(), 0, "leak: {destroy} {steps}");
            if !died {
                break;
            }
        }
        let least = if destroy { [1, 1, 1] } else { [1, 0, 1] };
        assert!(outcomes.iter().zip(least).all(|(seen, least)| *seen >= least), "{outcomes:?}");
    }
    // A word that names something else.
    let world = World::new();
    let process = world.process();
    let table = Small::create(world.store(&process), process.heap, &params).unwrap();
    word.store(DsaPointer::INVALID, Ordering::Relaxed);
    // SAFETY: nobody else uses it.
    let refused = unsafe { table.destroy_from(process.heap, &word) };
    assert_eq!(refused, Err(Error::NotATable));
}

#[test]
fn delete() {
    let case = Case {
        prepare: &|s| fill(s, 0..10),
        operate: &|s| assert!(s.delete(&3).unwrap()),
        allowed: &applied_or_not,
    };
    at_every_step(&case, 5);
}

#[test]
fn delete_with_shrinking() {
    // The last entry: all chunks go.
    let case = Case {
        prepare: &|s| {
            fill(s, 0..40);
            for key in 1..40 {
                assert!(s.delete(&key).unwrap());
            }
        },
        operate: &|s| assert!(s.delete(&0).unwrap()),
        allowed: &applied_or_not,
    };
    at_every_step(&case, 10);
    // Down to few: segments merge or shrink, directories halve.
    let world = World::with_pool(256 << 10);
    let process = world.process();
    let params = Params { partitions: 1, ..Params::default() };
    let table = Small::create(world.store(&process), process.heap, &params).unwrap();
    let session = table.bind(process.heap).unwrap();
    fill(&session, 0..1500);
    let mut changes = Vec::new();
    let mut slots = session.stats().unwrap().slots;
    for key in 0..1500 {
        assert!(session.delete(&key).unwrap());
        let now = session.stats().unwrap().slots;
        if now != slots {
            changes.push(key);
        }
        slots = now;
    }
    assert!(changes.len() >= 3, "{changes:?}");
    for key in changes {
        let case = Case {
            prepare: &|s| {
                fill(s, 0..1500);
                for gone in 0..key {
                    assert!(s.delete(&gone).unwrap());
                }
            },
            operate: &|s| assert!(s.delete(&key).unwrap()),
            allowed: &applied_or_not,
        };
        let after = in_peace(&case);
        let steps = steps_of(&case, &after);
        assert!(steps > 12, "only {steps} steps for {key}");
    }
}

#[test]
fn sweeping() {
    let case = Case {
        prepare: &|s| {
            fill(s, 0..60);
            for key in 3..60 {
                assert!(s.delete(&key).unwrap());
            }
        },
        operate: &|s| s.trim().unwrap(),
        allowed: &applied_or_not,
    };
    at_every_step(&case, 20);
}

#[test]
fn a_value_whose_guard_was_live_is_poisoned() {
    let poisoned_or = |before: &Seen, after: &Seen, now: &Seen| {
        let mut poisoned = before.clone();
        poisoned.insert(3, None);
        now == before || now == after || *now == poisoned
    };
    let case = Case {
        prepare: &|s| fill(s, 0..10),
        operate: &|s| {
            let mut guard = s.find_exclusive(&3).unwrap().unwrap();
            guard[0] = 77;
            crate::step::step();
            guard[2] = 78;
        },
        allowed: &poisoned_or,
    };
    at_every_step(&case, 3);
    // In the middle of it for certain.
    let world = World::with_pool(256 << 10);
    let (witness, victim) = (world.process(), world.process());
    let params = Params { partitions: 4, ..Params::default() };
    let table = Small::create(world.store(&witness), witness.heap, &params).unwrap();
    let session = table.bind(witness.heap).unwrap();
    fill(&session, 0..100);
    let other = attach(&world, &victim, &table, &params);
    let mut guard = other.bind(victim.heap).unwrap().find_exclusive(&3).unwrap().unwrap();
    guard[0] = 77;
    victim.kill();
    drop(guard);
    assert_eq!(session.get(&3), Err(Error::Poisoned));
    assert!(matches!(session.find(&3), Err(Error::Poisoned)));
    for key in (0..100).filter(|k| *k != 3) {
        assert_eq!(session.get(&key).unwrap(), Some(value(key)));
    }
    assert_eq!(session.check().unwrap().poisoned, 1);
    assert!(session.repair(&3, |v| *v = value(3)).unwrap());
    assert_eq!(session.get(&3).unwrap(), Some(value(3)));
    assert_eq!(session.check().unwrap().poisoned, 0);
}

#[test]
fn a_leaked_guard_waits_for_the_death_of_its_process() {
    let world = World::with_pool(256 << 10);
    let (witness, victim) = (world.process(), world.process());
    let params = Params { partitions: 1, ..Params::default() };
    let table = Small::create(world.store(&witness), witness.heap, &params).unwrap();
    let session = table.bind(witness.heap).unwrap();
    fill(&session, 0..10);
    let other = attach(&world, &victim, &table, &params);
    let victims = other.bind(victim.heap).unwrap();
    core::mem::forget(victims.find_exclusive(&3).unwrap().unwrap());
    assert_eq!(victims.delete(&4), Err(Error::WouldDeadlock));
    let impatient = session.within(core::time::Duration::from_millis(20));
    let late = Error::Lock(dsm_core::lock::LockError::TimedOut);
    assert_eq!(impatient.delete(&4), Err(late));
    let busy = Error::Lock(dsm_core::lock::LockError::WouldBlock);
    assert_eq!(session.without_waiting().delete(&4), Err(busy));
    victim.kill();
    assert!(session.delete(&4).unwrap());
    assert_eq!(session.get(&3), Err(Error::Poisoned));
    assert!(session.delete(&3).unwrap());
    assert_eq!(session.check().unwrap().stats.entries, 8);
    // Readers that die leave nothing.
    let reader = world.process();
    let other = attach(&world, &reader, &table, &params);
    core::mem::forget(other.bind(reader.heap).unwrap().find(&5).unwrap().unwrap());
    assert_eq!(session.without_waiting().delete(&5), Err(busy));
    assert_eq!(session.get(&5).unwrap(), Some(value(5)));
    reader.kill();
    assert!(session.delete(&5).unwrap());
    session.check().unwrap();
}

#[test]
fn scans_that_die() {
    let case = Case {
        prepare: &|s| fill(s, 0..20),
        operate: &|s| {
            let mut scan = s.scan_mut();
            while let Some(entry) = scan.next().unwrap() {
                if *entry.key() % 2 == 0 {
                    entry.delete().unwrap();
                }
            }
        },
        allowed: &|before, after, now| {
            // Some of those that go are gone; one may be poisoned.
            let poisoned = now.values().filter(|v| v.is_none()).count();
            poisoned <= 1
                && after.keys().all(|k| now.contains_key(k))
                && now.keys().all(|k| before.contains_key(k))
        },
    };
    assert!(steps_of(&case, &in_peace(&case)) > 50);
}
