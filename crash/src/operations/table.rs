//! The hash table: insert, delete, change, replace; growing and shrinking; scans.
//!
//! The oracle knows what the table held and what it holds when the operation is done. A survivor
//! finds one or the other; where a guard was live, it may find that one entry poisoned. Then the
//! table works, and when it is destroyed nothing is used in its area.

use std::collections::BTreeMap;

use dshash_core::{Error, Params, Session, Stats, Table, TableHandle};
use dsm_core::sync::compiler_fence;

use super::area_kit::{A, Kit, scene};
use crate::case::{Case, Operation, Place, What};
use crate::explore::rehearse;
use crate::member::{ANCESTOR, ensure, finds_nothing, leak, mortals, text};
use crate::system;

type Values = Table<u64, [u64; 3], &'static A>;
type Here = Session<'static, u64, [u64; 3], &'static A>;
/// Key and value; `None` for a poisoned value.
type Seen = BTreeMap<u64, Option<[u64; 3]>>;

/// What may be left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// All of it or nothing.
    Whole,
    /// A guard is live for a while: its entry may be poisoned.
    Guarded,
    /// An entry after the other: some of them, and one may be poisoned.
    Piecemeal,
}

const CASES: [Operation; 23] = [
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

fn value(key: u64) -> [u64; 3] {
    [key, !key, key.wrapping_mul(3)]
}

/// A process with the table.
#[derive(Clone, Copy)]
struct User {
    kit: Kit,
    session: Here,
}

fn params() -> Params {
    Params { partitions: 2, ..Params::default() }
}

impl User {
    fn create(kit: Kit) -> Self {
        Self::of(kit, Values::create(kit.area, kit.heap, &params()).expect("creates"))
    }

    fn attach(kit: Kit, handle: TableHandle) -> Self {
        // SAFETY: the table is destroyed when nobody uses it any more.
        Self::of(kit, unsafe { Values::attach(kit.area, handle, &params()) }.expect("attaches"))
    }

    fn of(kit: Kit, table: Values) -> Self {
        let session = leak(table).bind(kit.heap).expect("the heap is of this area");
        Self { kit, session }
    }

    fn insert(&self, key: u64) {
        self.session.insert(&key, value(key)).expect("inserts");
    }

    fn delete(&self, key: u64) {
        assert!(self.session.delete(&key).expect("deletes"));
    }

    fn contents(&self) -> Result<Seen, String> {
        let mut seen = Seen::new();
        let mut scan = self.session.scan();
        while let Some(entry) = scan.next().map_err(text)? {
            let value = match entry.value() {
                Ok(value) => Some(*value),
                Err(Error::Poisoned) => None,
                Err(error) => return Err(text(error)),
            };
            let twice = seen.insert(*entry.key(), value).is_some();
            ensure(!twice, || format!("the key {} is there twice", entry.key()))?;
        }
        Ok(seen)
    }
}

/// A table with what was put into it.
struct Tables {
    users: Vec<User>,
    victim: User,
}

fn tables(rescuers: usize, prepare: impl Fn(&User)) -> Tables {
    let scene = scene(rescuers);
    let witness = User::create(scene.kits[0]);
    let handle = witness.session.table().handle();
    let victim = User::attach(scene.victim, handle);
    prepare(&victim);
    let rescuers = scene.kits[1..].iter().map(|kit| User::attach(*kit, handle));
    Tables { users: std::iter::once(witness).chain(rescuers).collect(), victim }
}

impl Tables {
    fn case(
        self,
        name: &'static str,
        effect: Effect,
        operate: impl Fn(&User) + 'static,
        change: impl Fn(&mut Seen) + 'static,
    ) -> Case {
        let Self { users, victim } = self;
        let witness = users[0];
        let before = witness.contents().expect("is in order");
        let mut after = before.clone();
        change(&mut after);
        let table = place_of(&witness);
        Case {
            name,
            mortals: mortals(users.len() - 1),
            operate: Box::new(move || operate(&victim)),
            recover: Box::new(move |who, order| recover(&users[who], order)),
            orders: 3,
            judge: Box::new(move || judge(&witness, &before, &after, effect)),
            newcomer: Box::new(finds_nothing),
            places: vec![witness.kit.place(), table],
        }
    }
}

/// Where the partitions' locks lie: in the table's one allocation.
fn place_of(user: &User) -> Place {
    let pointer = user.session.table().handle().0;
    let address = user.kit.area.lock_address(pointer).expect("is mapped");
    let size = user.kit.area.size_of_object(pointer).expect("is an object");
    let offsets = address.offset()..address.offset() + size;
    Place { slot: address.slot(), offsets, what: What::Table }
}

/// The dead are found by the namespace, the area, and the table, in any order.
fn recover(user: &User, order: usize) -> Result<(), String> {
    let table = || user.session.check().map(|_| ()).map_err(text);
    let area = || user.kit.heap.maintain().map_err(text);
    match order {
        0 => {
            user.kit.member.reap()?;
            user.kit.member.succeed()?;
            area()?;
            table()
        }
        1 => {
            table()?;
            area()
        }
        _ => {
            area()?;
            // By what it does anyway, whichever partition it is in.
            for key in 2_000_000..2_000_004 {
                user.session.insert(&key, value(key)).map_err(text)?;
                user.session.delete(&key).map_err(text)?;
            }
            table()
        }
    }
}

fn judge(
    witness: &User,
    before: &Seen,
    after: &Seen,
    effect: Effect,
) -> Result<&'static str, String> {
    let (session, kit) = (&witness.session, &witness.kit);
    let report = session.check().map_err(text)?;
    kit.area.check(kit.member.participant).map_err(text)?;
    let now = witness.contents()?;
    let poisoned: Vec<_> = now.iter().filter(|(_, v)| v.is_none()).map(|(k, _)| *k).collect();
    ensure(report.poisoned == poisoned.len() as u64, || "poisoned entries were miscounted".into())?;
    let outcome = if now == *after {
        "after"
    } else if now == *before {
        "before"
    } else {
        let only_that = |key: &u64, value: &Option<[u64; 3]>| {
            value.is_none() || before.get(key) == Some(value) || after.get(key) == Some(value)
        };
        let known = now.iter().all(|(key, value)| only_that(key, value));
        let kept =
            before.keys().filter(|key| after.contains_key(key)).all(|key| now.contains_key(key));
        let allowed = match effect {
            Effect::Whole => false,
            Effect::Guarded => poisoned.len() == 1,
            Effect::Piecemeal => poisoned.len() <= 1,
        };
        ensure(allowed && known && kept, || {
            let differs = |a: &Seen, b: &Seen| -> Vec<u64> {
                a.iter().filter(|(k, v)| b.get(k) != Some(v)).map(|(k, _)| *k).collect()
            };
            format!(
                "neither before nor after: poisoned {poisoned:?}, lacks {:?} of before and {:?} of \
                 after, has {:?} besides before",
                differs(before, &now),
                differs(after, &now),
                differs(&now, before)
            )
        })?;
        if poisoned.is_empty() { "partly" } else { "poisoned" }
    };
    for key in poisoned {
        let told = session.find_exclusive(&key).map(|_| ());
        ensure(told == Err(Error::Poisoned), || "a poisoned entry is handed out".into())?;
        let repaired = session.repair(&key, |v| *v = value(key)).map_err(text)?;
        ensure(repaired, || "a poisoned entry cannot be repaired".into())?;
        crate::explore::mark("poison repaired");
    }
    works(session)?;
    // Many one by one take long.
    for key in now.keys().take(100) {
        ensure(session.delete(key).map_err(text)?, || format!("the key {key} cannot be deleted"))?;
    }
    session.clear().map_err(text)?;
    ensure(session.check().map_err(text)?.stats.entries == 0, || "entries are left".into())?;
    // SAFETY: the table was leaked; its copy, and others', are not used any more.
    let table = unsafe { std::ptr::read(session.table()) };
    // SAFETY: as above.
    unsafe { table.destroy(kit.heap) }.map_err(text)?;
    kit.is_empty(0)?;
    kit.works()?;
    kit.detach();
    kit.member.only_survivor();
    kit.member.reap()?;
    kit.member.expect_objects(0)?;
    kit.member.end()?;
    Ok(outcome)
}

/// Entries come and go, enough of them to make it grow.
fn works(session: &Here) -> Result<(), String> {
    for key in 1_000_000..1_000_060 {
        ensure(session.insert(&key, value(key)).map_err(text)?.is_none(), || "is there".into())?;
    }
    for key in 1_000_000..1_000_060 {
        let found = session.get(&key).map_err(text)?;
        ensure(found == Some(value(key)), || format!("{found:?} at {key}"))?;
        ensure(session.delete(&key).map_err(text)?, || "is not there".into())?;
    }
    session.trim().map_err(text)?;
    session.check().map(|_| ()).map_err(text)
}

fn fill(user: &User, keys: std::ops::Range<u64>) {
    keys.for_each(|key| user.insert(key));
}

impl Tables {
    fn inserting(self, name: &'static str, key: u64) -> Case {
        self.case(
            name,
            Effect::Whole,
            move |user| user.insert(key),
            move |seen| {
                seen.insert(key, Some(value(key)));
            },
        )
    }

    fn deleting(self, name: &'static str, key: u64) -> Case {
        self.case(
            name,
            Effect::Whole,
            move |user| user.delete(key),
            move |seen| {
                seen.remove(&key);
            },
        )
    }
}

fn insert_first(rescuers: usize) -> Case {
    tables(rescuers, |_| {}).inserting("table-insert-first", 5)
}

fn insert(rescuers: usize) -> Case {
    tables(rescuers, |user| fill(user, 0..9)).inserting("table-insert", 9)
}

/// Into the place of an entry that was deleted.
fn insert_reusing(rescuers: usize) -> Case {
    let before = |user: &User| {
        fill(user, 0..20);
        [3, 7, 8, 11].into_iter().for_each(|key| user.delete(key));
    };
    tables(rescuers, before).inserting("table-insert-reusing", 55)
}

/// What happens to a table when it grows or shrinks.
type Turn = fn(&Stats, &Stats) -> bool;

/// The first key whose insertion by the victim (the deletion of the last but so many, if
/// `shrinking`) is such a turn.
fn turning_point(victim: &User, keys: u64, shrinking: bool, turn: Turn) -> u64 {
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

fn grow_split(rescuers: usize) -> Case {
    growing("table-grow-split", rescuers, |a, b| b.segments > a.segments && a.segments > 2)
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

fn repair(rescuers: usize) -> Case {
    let tables = tables(rescuers, |user| fill(user, 0..10));
    let handle = tables.victim.session.table().handle();
    let dead = User::attach(Kit::start(ANCESTOR, &tables.victim.kit), handle);
    std::mem::forget(dead.session.find_exclusive(&3).expect("finds"));
    system::kill(ANCESTOR);
    tables.victim.session.check().map(|_| ()).expect("is in order");
    tables.case(
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
    let prepare = |user: &User| {
        fill(user, 0..200);
        (10..200).for_each(|key| user.delete(key));
    };
    let trim = |user: &User| user.session.trim().expect("trims");
    tables(rescuers, prepare).case("table-trim", Effect::Whole, trim, |_| {})
}

/// Somebody died amid a change; the victim comes across it.
fn recovering(rescuers: usize) -> Case {
    let tables = tables(rescuers, |user| fill(user, 0..30));
    let witness = tables.users[0];
    let dead = User::attach(Kit::start(ANCESTOR, &witness.kit), witness.session.table().handle());
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
