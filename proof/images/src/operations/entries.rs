//! Other ways to an entry of a table: by its place, by a guard that is taken if it can be had, and
//! marks of poison.

use std::time::Duration;

use dshash_core::Entry;

use super::table_kit::{Effect, Tables, Typed, fill, tables, value};
use crate::case::{Case, Operation};

const CASES: [Operation; 6] = [
    Operation {
        name: "entry-find-or-insert",
        must: &["before", "after", "poisoned", "holds a partition"],
        make: find_or_insert,
    },
    Operation {
        name: "entry-modify",
        must: &["before", "after", "poisoned", "holds a partition"],
        make: modify,
    },
    Operation {
        name: "entry-delete",
        must: &["before", "after", "poisoned", "holds a partition"],
        make: delete,
    },
    Operation {
        name: "entry-poison",
        must: &["before", "poisoned", "poison repaired", "after", "holds a partition"],
        make: poison,
    },
    Operation {
        name: "entry-scan-repair",
        must: &["before", "after", "poisoned", "holds a partition"],
        make: scan_repair,
    },
    Operation { name: "table-look", must: &["after", "holds a partition"], make: look },
];

pub(super) const ALL: &[Operation] = &CASES;

fn ten(rescuers: usize) -> Tables<Typed> {
    tables(rescuers, |user| fill(user, 0..10))
}

fn find_or_insert(rescuers: usize) -> Case {
    ten(rescuers).case(
        "entry-find-or-insert",
        Effect::Guarded,
        |user| {
            let session = user.session.without_waiting();
            let (guard, found) = session.find_or_insert(&30, || value(30)).expect("inserts");
            assert!(!found);
            guard.release();
        },
        |seen| {
            seen.insert(30, Some(value(30)));
        },
    )
}

fn modify(rescuers: usize) -> Case {
    ten(rescuers).case(
        "entry-modify",
        Effect::Guarded,
        |user| {
            let session = user.session.within(Duration::from_secs(1));
            let entry = session.entry(&3).expect("locks").and_modify(|v| *v = value(79));
            drop(entry.or_insert(value(0)).expect("is there"));
        },
        |seen| {
            seen.insert(3, Some(value(79)));
        },
    )
}

fn delete(rescuers: usize) -> Case {
    ten(rescuers).case(
        "entry-delete",
        Effect::Guarded,
        |user| match user.session.entry(&3).expect("locks") {
            Entry::Occupied(entry) => entry.delete().expect("deletes"),
            Entry::Vacant(_) => unreachable!("the key is there"),
        },
        |seen| {
            seen.remove(&3);
        },
    )
}

/// Marks a value as poisoned, and takes that back.
fn poison(rescuers: usize) -> Case {
    ten(rescuers).case(
        "entry-poison",
        Effect::Guarded,
        |user| {
            let guard = user.session.find_exclusive(&3).expect("finds");
            guard.expect("is there").poison();
            let guard = user.session.find_poisoned(&3).expect("finds");
            let mut guard = guard.expect("is there");
            *guard = value(80);
            guard.clear_poison();
        },
        |seen| {
            seen.insert(3, Some(value(80)));
        },
    )
}

fn scan_repair(rescuers: usize) -> Case {
    ten(rescuers).case(
        "entry-scan-repair",
        Effect::Piecemeal,
        |user| {
            let mut scan = user.session.scan_mut();
            while let Some(mut entry) = scan.next().expect("goes on") {
                if *entry.key() == 5 {
                    entry.poison();
                    *entry.value_mut() = value(81);
                    entry.clear_poison();
                }
            }
            scan.end();
        },
        |seen| {
            seen.insert(5, Some(value(81)));
        },
    )
}

/// What only looks leaves no trace.
fn look(rescuers: usize) -> Case {
    ten(rescuers).case(
        "table-look",
        Effect::Whole,
        |user| {
            let (session, table) = (&user.session, user.session.table());
            assert!(session.contains(&3).expect("looks") && !table.is_empty());
            let mut found = 0;
            let keys: Vec<_> = (0..12).collect();
            let count = |_, value: Result<Option<_>, _>| found += usize::from(value.is_ok());
            session.get_many(&keys, count).expect("looks");
            assert_eq!(found, keys.len());
            table.peek(&mut |_| {}).expect("looks");
            session.dump(&mut String::new()).expect("writes");
            let mut scan = session.scan();
            scan.next().expect("goes on").expect("is there");
            scan.end();
            for partition in 0..table.partitions() {
                session.partition_stats(partition).expect("counts");
            }
        },
        |_| {},
    )
}
