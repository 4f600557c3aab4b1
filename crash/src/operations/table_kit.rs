//! A member with a table, and the judge of what a death in it left.
//!
//! The oracle knows what the table held and what it holds when the operation is done. A survivor
//! finds one or the other; where a guard was live, it may find that one entry poisoned. Then the
//! table works, and when it is destroyed nothing is used in its area.

use std::collections::BTreeMap;

use dshash_core::{Error, Params, Session, Table, TableHandle};

use super::area_kit::{A, Kit, scene};
use crate::case::{Case, Place, What};
use crate::member::{ensure, finds_nothing, leak, mortals, text};

pub(super) type Values = Table<u64, [u64; 3], &'static A>;
pub(super) type Here = Session<'static, u64, [u64; 3], &'static A>;
/// Key and value; `None` for a poisoned value.
pub(super) type Seen = BTreeMap<u64, Option<[u64; 3]>>;

/// What may be left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// All of it or nothing.
    Whole,
    /// A guard is live for a while: its entry may be poisoned.
    Guarded,
    /// An entry after the other: some of them, and one may be poisoned.
    Piecemeal,
}

pub(super) fn value(key: u64) -> [u64; 3] {
    [key, !key, key.wrapping_mul(3)]
}

/// A process with the table.
#[derive(Clone, Copy)]
pub(super) struct User {
    pub(super) kit: Kit,
    pub(super) session: Here,
}

pub(super) fn params() -> Params {
    Params { partitions: 2, ..Params::default() }
}

impl User {
    pub(super) fn create(kit: Kit) -> Self {
        Self::of(kit, Values::create(kit.area, kit.heap, &params()).expect("creates"))
    }

    pub(super) fn attach(kit: Kit, handle: TableHandle) -> Self {
        // SAFETY: the table is destroyed when nobody uses it any more.
        Self::of(kit, unsafe { Values::attach(kit.area, handle, &params()) }.expect("attaches"))
    }

    pub(super) fn of(kit: Kit, table: Values) -> Self {
        let session = leak(table).bind(kit.heap).expect("the heap is of this area");
        Self { kit, session }
    }

    pub(super) fn insert(&self, key: u64) {
        self.session.insert(&key, value(key)).expect("inserts");
    }

    pub(super) fn delete(&self, key: u64) {
        assert!(self.session.delete(&key).expect("deletes"));
    }

    pub(super) fn contents(&self) -> Result<Seen, String> {
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
pub(super) struct Tables {
    pub(super) users: Vec<User>,
    pub(super) victim: User,
}

pub(super) fn tables(rescuers: usize, prepare: impl Fn(&User)) -> Tables {
    let scene = scene(rescuers);
    let witness = User::create(scene.kits[0]);
    let handle = witness.session.table().handle();
    let victim = User::attach(scene.victim, handle);
    prepare(&victim);
    let rescuers = scene.kits[1..].iter().map(|kit| User::attach(*kit, handle));
    Tables { users: std::iter::once(witness).chain(rescuers).collect(), victim }
}

impl Tables {
    pub(super) fn case(
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
            orders: 4,
            judge: Box::new(move || judge(&witness, &before, &after, effect)),
            newcomer: Box::new(finds_nothing),
            places: vec![witness.kit.place(), table],
        }
    }
}

/// Where the partitions' locks lie: in the table's one allocation.
pub(super) fn place_of(user: &User) -> Place {
    let pointer = user.session.table().handle().0;
    let address = user.kit.area.lock_address(pointer).expect("is mapped");
    let size = user.kit.area.size_of_object(pointer).expect("is an object");
    let offsets = address.offset()..address.offset() + size;
    Place { slot: address.slot(), offsets, what: What::Table }
}

/// The dead are found by the namespace, the area, and the table, in any order.
pub(super) fn recover(user: &User, order: usize) -> Result<(), String> {
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
        2 => {
            reads_whole_values(user)?;
            area()?;
            table()
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

/// What is read without a lock, before anybody has repaired anything, is no half-written value.
fn reads_whole_values(user: &User) -> Result<(), String> {
    for key in 0..40 {
        match user.session.get(&key) {
            Ok(Some(found)) => {
                ensure(found == value(found[0]), || format!("{found:?} was read at {key}"))?;
            }
            Ok(None) | Err(Error::Poisoned) => {}
            Err(error) => return Err(text(error)),
        }
    }
    Ok(())
}

pub(super) fn judge(
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
    let others = kit.overwrite_free_memory()?;
    session.check().map_err(text)?;
    ensure(witness.contents()? == now, || "memory of the table was given to others".into())?;
    others.into_iter().try_for_each(|object| kit.free(object))?;
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
pub(super) fn works(session: &Here) -> Result<(), String> {
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

pub(super) fn fill(user: &User, keys: std::ops::Range<u64>) {
    keys.for_each(|key| user.insert(key));
}

impl Tables {
    pub(super) fn inserting(self, name: &'static str, key: u64) -> Case {
        self.case(
            name,
            Effect::Whole,
            move |user| user.insert(key),
            move |seen| {
                seen.insert(key, Some(value(key)));
            },
        )
    }

    pub(super) fn deleting(self, name: &'static str, key: u64) -> Case {
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
