//! Tables whose waits are bounded, while another process holds a partition, and places of keys that
//! outlive the key.

use std::time::Duration;

use dsm_registry::{
    Bounded, Entry, Error, ErrorKind, HashOptions, HashTable, LockError, WriteGuard,
};
use testkit::process::Peer;

use crate::support::{Part, Roles, Space};

pub(crate) const ROLES: Roles =
    &[("hold a partition", hold), ("hold a partition shared", hold_shared)];

/// A table of one partition, with two entries.
fn table(registry: &dsm_registry::Registry) -> HashTable<u64, u64> {
    registry.hash_with("table", HashOptions::new().partitions(1)).unwrap()
}

fn hold(part: &Part) {
    let table = table(&part.open());
    let _guard = table.find_mut(&1).unwrap().unwrap();
    part.say("held");
    part.ask();
}

fn hold_shared(part: &Part) {
    let table = table(&part.open());
    let _guard = table.find(&1).unwrap().unwrap();
    part.say("held");
    part.ask();
}

type View<'t> = Bounded<'t, u64, u64>;
type Call = (&'static str, fn(&View<'_>) -> Result<(), Error>);

/// The first error of a walk.
fn walked(mut items: impl Iterator<Item = Result<(u64, u64), Error>>) -> Result<(), Error> {
    items.try_for_each(|item| item.map(drop))
}

/// What only looks.
const LOOKING: &[Call] = &[
    ("find", |view| view.find(&1).map(drop)),
    ("get", |view| view.get(&1).map(drop)),
    ("get_many", |view| {
        let mut first = Ok(());
        view.get_many(&[1, 2], |_, value| {
            first = std::mem::replace(&mut first, Ok(())).and(value.map(drop))
        })?;
        first
    }),
    ("scan", |view| view.scan()?.next().map(drop)),
    ("iter", |view| walked(view.iter()?)),
    ("stats", |view| view.stats().map(drop)),
];

/// What changes, or might.
const CHANGING: &[Call] = &[
    ("find_mut", |view| view.find_mut(&1).map(drop)),
    ("entry", |view| view.entry(&1).map(drop)),
    ("entry_or_repair", |view| view.entry_or_repair(&1, |_| unreachable!()).map(drop)),
    ("poisoned", |view| view.poisoned(&1).map(drop)),
    ("insert", |view| view.insert(&2, 2).map(drop)),
    ("remove", |view| view.remove(&3).map(drop)),
    ("scan_mut", |view| view.scan_mut()?.next().map(drop)),
    ("trim", |view| view.trim()),
    ("check", |view| view.check().map(drop)),
    ("clear", |view| view.clear()),
];

fn held(space: &Space, role: &str) -> Peer {
    let mut peer = space.peer(role);
    peer.expect("held");
    peer
}

/// Each of the calls, and whether it failed by what it has to.
fn expect(table: &HashTable<u64, u64>, calls: &[&[Call]], refused: bool) {
    let soon = table.within(Duration::from_millis(5));
    for (view, by) in
        [(table.without_waiting(), LockError::WouldBlock), (soon, LockError::TimedOut)]
    {
        for (name, call) in calls.iter().copied().flatten() {
            match call(&view) {
                Err(error) if refused => {
                    assert_eq!(error.kind(), &ErrorKind::Lock(by), "{name}");
                }
                Ok(()) if !refused => {}
                other => panic!("{name}: {other:?} ({refused}, {by:?})"),
            }
        }
    }
}

#[test]
fn each_wait_for_another_process_is_bounded() {
    let space = Space::new("waits");
    let registry = space.open();
    let table = table(&registry);
    for key in [1, 2] {
        table.insert(&key, key).unwrap();
    }
    let mut peer = held(&space, "hold a partition");
    expect(&table, &[LOOKING, CHANGING], true);
    peer.say("go");
    peer.finish();
    let mut peer = held(&space, "hold a partition shared");
    expect(&table, &[LOOKING], false);
    expect(&table, &[CHANGING], true);
    peer.say("go");
    peer.finish();
    assert_eq!(table.get(&2).unwrap(), Some(2), "nothing was changed");
    // What is free is had, by every call.
    expect(&table, &[LOOKING, CHANGING], false);
    assert!(table.is_empty().unwrap());
}

/// What is held by a dead process is had at once, poison and all.
#[test]
fn nobody_waits_for_the_dead() {
    let space = Space::new("dead");
    let registry = space.open();
    let table = table(&registry);
    table.insert(&1, 1).unwrap();
    held(&space, "hold a partition").kill_and_collect();
    registry.reap().unwrap();
    let view = table.within(Duration::from_secs(30));
    assert!(view.get(&1).is_err_and(|e| e.is_poisoned()));
    assert!(view.poisoned(&1).unwrap().is_some());
    let entry = view.entry_or_repair(&1, |value| *value = 7).unwrap();
    assert!(matches!(&entry, Entry::Occupied(guard) if **guard == 7));
    drop(entry);
    assert_eq!(view.get(&1).unwrap(), Some(7));
}

/// The limit of a walk is on its waits, not on what is done between them.
#[test]
fn a_walk_may_take_longer_than_its_waits() {
    let space = Space::new("walk");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    for key in 0..100 {
        table.insert(&key, key).unwrap();
    }
    let view = table.within(Duration::from_secs(10));
    let mut scan = view.scan().unwrap();
    let mut count = 0;
    while scan.next().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 100);
    drop(scan);
    // By the time of the second partition the first limit is over.
    let limit = Duration::from_secs(2);
    let last = table.within(limit);
    let mut scan = last.scan_mut().unwrap();
    assert!(scan.next().unwrap().is_some());
    std::thread::sleep(limit + limit / 20);
    std::thread::scope(|threads| {
        let (hold, held) = std::sync::mpsc::channel();
        let table = &table;
        threads.spawn(move || {
            // The last that the walk comes to, probably; any but the first will do.
            let mut guards = Vec::new();
            if let Some(guard) =
                (0..100).rev().find_map(|key| table.without_waiting().find(&key).ok().flatten())
            {
                guards.push(guard);
            }
            hold.send(()).unwrap();
            std::thread::sleep(limit / 20);
            drop(guards);
        });
        held.recv().unwrap();
        while scan.next().expect("each wait has a limit of its own").is_some() {}
    });
}

/// The place of a key that only the callee knows.
fn place<'t>(table: &'t HashTable<[u64; 4], u64>, seed: u64) -> Entry<'t, [u64; 4], u64> {
    let key = [seed, seed + 1, seed + 2, seed + 3];
    table.entry(&key).unwrap()
}

fn claim(table: &HashTable<[u64; 4], u64>, seed: u64) -> WriteGuard<'_, [u64; 4], u64> {
    let key = [seed, seed + 1, seed + 2, seed + 3];
    let view = table.within(Duration::from_secs(10));
    view.entry(&key).unwrap().or_insert(seed).unwrap()
}

#[test]
fn a_place_outlives_the_key_that_it_was_asked_for_by() {
    let space = Space::new("place");
    let registry = space.open();
    let table = registry.hash::<[u64; 4], u64>("table").unwrap();
    let Entry::Vacant(vacant) = place(&table, 1) else { panic!("nobody was there") };
    drop(vacant.insert(10).unwrap());
    assert_eq!(table.get(&[1, 2, 3, 4]).unwrap(), Some(10));
    assert!(matches!(place(&table, 1), Entry::Occupied(_)));
    assert_eq!(*claim(&table, 1), 10);
    assert_eq!(*claim(&table, 5), 5);
    assert_eq!(table.get(&[5, 6, 7, 8]).unwrap(), Some(5));
    let repaired = table.entry_or_repair(&[9; 4], |_| unreachable!()).unwrap();
    assert!(matches!(repaired, Entry::Vacant(_)));
}

/// A whole value is put in the place of one that nobody can trust.
#[test]
fn to_insert_heals_a_poisoned_entry() {
    let space = Space::new("heal");
    let registry = space.open();
    let table = table(&registry);
    for (view, value) in [(None, 7), (Some(Duration::from_secs(30)), 8)] {
        table.insert(&1, 1).unwrap();
        held(&space, "hold a partition").kill_and_collect();
        registry.reap().unwrap();
        assert!(table.get(&1).is_err_and(|e| e.is_poisoned()));
        assert!(table.find(&1).is_err_and(|e| e.is_poisoned()));
        let replaced = match view {
            None => table.insert(&1, value),
            Some(limit) => table.within(limit).insert(&1, value),
        };
        assert_eq!(replaced.unwrap(), None, "a poisoned value is not handed out");
        assert_eq!(table.get(&1).unwrap(), Some(value));
        assert!(table.poisoned(&1).unwrap().is_none());
        assert_eq!(table.check().unwrap().poisoned, 0);
    }
    assert_eq!(table.insert(&1, 9).unwrap(), Some(8));
}
