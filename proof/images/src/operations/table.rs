//! The hash table: insert, delete, change, replace; growing and shrinking; scans.

use dshash_core::Stats;
use dsm_core::sync::compiler_fence;

use super::area_kit::Kit;
use super::table_kit::{Effect, Seen, Tables, Typed, User, fill, tables, value};
use crate::case::{Case, Operation};
use crate::explore::rehearse;
use crate::member::ANCESTOR;
use crate::system;

const CASES: [Operation; 25] = [
    Operation {
        name: "table-insert-first",
        must: &["before", "after", "holds a partition"],
        make: insert_first,
    },
    Operation {
        name: "table-insert",
        must: &["before", "after", "holds a partition"],
        make: insert,
    },
    Operation {
        name: "table-insert-reusing",
        must: &["before", "after", "holds a partition"],
        make: insert_reusing,
    },
    Operation {
        name: "table-insert-by-entry",
        must: &["before", "after", "poisoned", "poison repaired", "holds a partition"],
        make: insert_by_entry,
    },
    Operation {
        name: "table-grow-chunk",
        must: &["before", "after", "holds a partition"],
        make: grow_chunk,
    },
    Operation {
        name: "table-grow-index",
        must: &["before", "after", "holds a partition"],
        make: grow_slots,
    },
    Operation {
        name: "table-grow-index-again",
        must: &["before", "after", "holds a partition"],
        make: grow_slots_again,
    },
    Operation {
        name: "table-grow-split",
        must: &["before", "after", "holds a partition"],
        make: grow_split,
    },
    Operation {
        name: "table-grow-directory",
        must: &["before", "after", "holds a partition"],
        make: grow_directory,
    },
    Operation {
        name: "table-delete",
        must: &["before", "after", "holds a partition"],
        make: delete,
    },
    Operation {
        name: "table-delete-last",
        must: &["before", "after", "holds a partition"],
        make: delete_last,
    },
    Operation {
        name: "table-delete-by-guard",
        must: &["before", "after", "poisoned", "holds a partition"],
        make: delete_by_guard,
    },
    Operation {
        name: "table-shrink-chunk",
        must: &["before", "after", "holds a partition"],
        make: shrink_chunk,
    },
    Operation {
        name: "table-shrink-index",
        must: &["before", "after", "holds a partition"],
        make: shrink_index,
    },
    Operation {
        name: "table-shrink-directory",
        must: &["before", "after", "holds a partition"],
        make: shrink_directory,
    },
    Operation {
        name: "table-replace",
        must: &["before", "after", "poisoned", "holds a partition"],
        make: replace,
    },
    Operation {
        name: "table-replace-poisoned",
        must: &["before", "after", "holds a partition"],
        make: replace_poisoned,
    },
    Operation {
        name: "table-change",
        must: &["before", "after", "poisoned", "poison repaired", "holds a partition"],
        make: change,
    },
    Operation {
        name: "table-repair",
        must: &["before", "after", "holds a partition"],
        make: repair,
    },
    Operation { name: "table-recover", must: &["after", "holds a partition"], make: recovering },
    Operation {
        name: "table-find",
        must: &["after", "holds a partition", "holds a lock shared"],
        make: read,
    },
    Operation {
        name: "table-scan-delete",
        must: &["before", "after", "partly", "poisoned", "holds a partition"],
        make: scan_and_delete,
    },
    Operation {
        name: "table-scan-change",
        must: &["before", "after", "partly", "poisoned", "holds a partition"],
        make: scan_and_change,
    },
    Operation { name: "table-clear", must: &["before", "after", "holds a partition"], make: clear },
    Operation { name: "table-trim", must: &["after", "holds a partition"], make: trim },
];

pub(super) const ALL: &[Operation] = &CASES;

fn insert_first(rescuers: usize) -> Case {
    tables(rescuers, |_| {}).inserting("table-insert-first", 5)
}

fn insert(rescuers: usize) -> Case {
    tables(rescuers, |user| fill(user, 0..9)).inserting("table-insert", 9)
}

/// Into the place of an entry that was deleted.
fn insert_reusing(rescuers: usize) -> Case {
    let before = |user: &Typed| {
        fill(user, 0..20);
        [3, 7, 8, 11].into_iter().for_each(|key| user.delete(key));
    };
    tables(rescuers, before).inserting("table-insert-reusing", 55)
}

/// What happens to a table when it grows or shrinks.
type Turn = fn(&Stats, &Stats) -> bool;

/// The first key whose insertion by the victim (the deletion of the last but so many, if
/// `shrinking`) is such a turn.
fn turning_point(victim: &Typed, keys: u64, shrinking: bool, turn: Turn) -> u64 {
    rehearse(|| {
        let stats = || victim.session.stats().expect("is in order");
        let mut before = stats();
        for key in 0..keys {
            if shrinking {
                victim.delete(keys - 1 - key);
            } else {
                victim.insert(key);
            }
            let after = stats();
            if turn(&before, &after) {
                return key;
            }
            before = after;
        }
        panic!("no such turn within {keys} keys")
    })
}

fn growing(name: &'static str, rescuers: usize, turn: Turn) -> Case {
    let tables = tables(rescuers, |_| {});
    let victim = tables.victim;
    let key = turning_point(&victim, 4000, false, turn);
    fill(&victim, 0..key);
    tables.inserting(name, key)
}

fn shrinking(name: &'static str, rescuers: usize, turn: Turn) -> Case {
    const KEYS: u64 = 1300;
    let tables = tables(rescuers, |user| fill(user, 0..KEYS));
    let victim = tables.victim;
    let last = KEYS - 1 - turning_point(&victim, KEYS, true, turn);
    (last + 1..KEYS).rev().for_each(|key| victim.delete(key));
    tables.deleting(name, last)
}

fn grow_chunk(rescuers: usize) -> Case {
    growing("table-grow-chunk", rescuers, |a, b| b.chunks > a.chunks && b.chunks > 4)
}

fn grow_slots(rescuers: usize) -> Case {
    growing("table-grow-index", rescuers, |a, b| b.slots > a.slots && b.segments == a.segments)
}

/// What is replaced is not the table's first index, and is freed.
fn grow_slots_again(rescuers: usize) -> Case {
    const FIRST: u64 = 4 * 12;
    growing("table-grow-index-again", rescuers, |a, b| {
        b.slots > a.slots + FIRST && b.segments == a.segments
    })
}

fn grow_split(rescuers: usize) -> Case {
    growing("table-grow-split", rescuers, |a, b| {
        b.segments > a.segments && a.segments > 2 && b.directory == a.directory
    })
}

fn grow_directory(rescuers: usize) -> Case {
    growing("table-grow-directory", rescuers, |a, b| b.directory > a.directory && a.directory > 2)
}

fn shrink_chunk(rescuers: usize) -> Case {
    shrinking("table-shrink-chunk", rescuers, |a, b| b.chunks < a.chunks)
}

fn shrink_index(rescuers: usize) -> Case {
    shrinking("table-shrink-index", rescuers, |a, b| b.slots < a.slots)
}

fn shrink_directory(rescuers: usize) -> Case {
    shrinking("table-shrink-directory", rescuers, |a, b| b.directory < a.directory)
}

fn delete(rescuers: usize) -> Case {
    tables(rescuers, |user| fill(user, 0..10)).deleting("table-delete", 3)
}

fn delete_last(rescuers: usize) -> Case {
    tables(rescuers, |user| fill(user, 0..1)).deleting("table-delete-last", 0)
}

/// Replaces the value of an entry.
fn replace(rescuers: usize) -> Case {
    tables(rescuers, |user| fill(user, 0..10)).case(
        "table-replace",
        Effect::Guarded,
        |user| {
            let old = user.session.insert(&3, value(77)).expect("replaces");
            assert_eq!(old, Some(value(3)));
        },
        |seen| {
            seen.insert(3, Some(value(77)));
        },
    )
}

/// Changes a value through a guard, word by word.
fn change(rescuers: usize) -> Case {
    tables(rescuers, |user| fill(user, 0..10)).case(
        "table-change",
        Effect::Guarded,
        |user| {
            let mut guard = user.session.find_exclusive(&3).expect("finds").expect("is there");
            for (word, new) in guard.iter_mut().zip(value(78)) {
                *word = new;
                compiler_fence();
            }
        },
        |seen| {
            seen.insert(3, Some(value(78)));
        },
    )
}

fn delete_by_guard(rescuers: usize) -> Case {
    tables(rescuers, |user| fill(user, 0..10)).case(
        "table-delete-by-guard",
        Effect::Guarded,
        |user| {
            let guard = user.session.find_exclusive(&3).expect("finds").expect("is there");
            guard.delete().expect("deletes");
        },
        |seen| {
            seen.remove(&3);
        },
    )
}

fn insert_by_entry(rescuers: usize) -> Case {
    tables(rescuers, |user| fill(user, 0..10)).case(
        "table-insert-by-entry",
        Effect::Guarded,
        |user| {
            let guard = user.session.entry(&30).expect("locks").or_insert(value(30));
            drop(guard.expect("inserts"));
        },
        |seen| {
            seen.insert(30, Some(value(30)));
        },
    )
}

/// Tables in which the entry of 3 is poisoned.
fn poisoned(rescuers: usize) -> Tables<Typed> {
    let tables = tables(rescuers, |user| fill(user, 0..10));
    let handle = tables.victim.session.table().handle();
    let dead = Typed::attach(Kit::start(ANCESTOR, &tables.victim.kit), handle).expect("attaches");
    std::mem::forget(dead.session.find_exclusive(&3).expect("finds"));
    system::kill(ANCESTOR);
    tables.victim.session.check().map(|_| ()).expect("is in order");
    tables
}

/// Replaces a value that a dead process was changing.
fn replace_poisoned(rescuers: usize) -> Case {
    poisoned(rescuers).case(
        "table-replace-poisoned",
        Effect::Guarded,
        |user| {
            let old = user.session.insert(&3, value(79)).expect("replaces");
            assert_eq!(old, None, "what is poisoned is not handed out");
        },
        |seen| {
            seen.insert(3, Some(value(79)));
        },
    )
}

fn repair(rescuers: usize) -> Case {
    poisoned(rescuers).case(
        "table-repair",
        Effect::Guarded,
        |user| {
            assert!(user.session.repair(&3, |v| *v = value(3)).expect("repairs"));
        },
        |seen| {
            seen.insert(3, Some(value(3)));
        },
    )
}

fn read(rescuers: usize) -> Case {
    tables(rescuers, |user| fill(user, 0..10)).case(
        "table-find",
        Effect::Whole,
        |user| {
            for key in 0..4 {
                let guard = user.session.find(&key).expect("finds").expect("is there");
                assert_eq!(*guard, value(key));
                assert_eq!(user.session.get(&key).expect("reads"), Some(value(key)));
            }
        },
        |_| {},
    )
}

fn scan_and_delete(rescuers: usize) -> Case {
    tables(rescuers, |user| fill(user, 0..30)).case(
        "table-scan-delete",
        Effect::Piecemeal,
        |user| {
            let mut scan = user.session.scan_mut();
            while let Some(entry) = scan.next().expect("goes on") {
                if *entry.key() % 2 == 0 {
                    entry.delete().expect("deletes");
                }
            }
        },
        |seen| seen.retain(|key, _| key % 2 == 1),
    )
}

fn scan_and_change(rescuers: usize) -> Case {
    tables(rescuers, |user| fill(user, 0..12)).case(
        "table-scan-change",
        Effect::Piecemeal,
        |user| {
            let mut scan = user.session.scan_mut();
            while let Some(mut entry) = scan.next().expect("goes on") {
                let key = *entry.key();
                *entry.value_mut() = value(key + 100);
            }
        },
        |seen| seen.iter_mut().for_each(|(key, v)| *v = Some(value(key + 100))),
    )
}

fn clear(rescuers: usize) -> Case {
    tables(rescuers, |user| fill(user, 0..60)).case(
        "table-clear",
        Effect::Piecemeal,
        |user| user.session.clear().expect("clears"),
        Seen::clear,
    )
}

fn trim(rescuers: usize) -> Case {
    let prepare = |user: &Typed| {
        fill(user, 0..200);
        (10..200).for_each(|key| user.delete(key));
    };
    let trim = |user: &Typed| user.session.trim().expect("trims");
    tables(rescuers, prepare).case("table-trim", Effect::Whole, trim, |_| {})
}

/// Somebody died amid a change; the victim comes across it.
fn recovering(rescuers: usize) -> Case {
    let tables = tables(rescuers, |user| fill(user, 0..30));
    let witness = tables.users[0];
    let dead =
        Typed::attach(Kit::start(ANCESTOR, &witness.kit), witness.handle()).expect("attaches");
    let case = tables.case(
        "table-recover",
        Effect::Guarded,
        |user| {
            user.session.check().map(|_| ()).expect("is in order");
        },
        |seen| {
            seen.insert(4, None);
        },
    );
    std::mem::forget(dead.session.find_exclusive(&4).expect("finds"));
    system::kill(ANCESTOR);
    case
}
