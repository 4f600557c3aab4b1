//! A member with a table, and the judge of what a death in it left.
//!
//! The oracle knows what the table held and what it holds when the operation is done. A survivor
//! finds one or the other; where a guard was live, it may find that one entry poisoned. Then the
//! table works, and when it is destroyed nothing is used in its area.

use std::collections::BTreeMap;

use dshash_core::{Error, Params, Report, Session, Table, TableHandle};

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

/// A process with a table of numbers, whichever kind of table that is.
pub(super) trait User: Copy + 'static {
    fn create(kit: Kit) -> Self;
    /// Attaches to a table that is destroyed when nobody uses it any more.
    fn attach(kit: Kit, handle: TableHandle) -> Result<Self, Error>;
    fn kit(&self) -> &Kit;
    fn handle(&self) -> TableHandle;
    fn check(&self) -> Result<Report, Error>;
    fn scan(&self, show: &mut dyn FnMut(u64, Option<[u64; 3]>)) -> Result<(), Error>;
    fn get(&self, key: u64) -> Result<Option<[u64; 3]>, Error>;
    fn put(&self, key: u64) -> Result<(), Error>;
    fn take(&self, key: u64) -> Result<bool, Error>;
    fn repair(&self, key: u64) -> Result<bool, Error>;
    fn clear(&self) -> Result<(), Error>;
    fn trim(&self) -> Result<(), Error>;
    /// Destroys the table, which must not be used any more.
    fn destroy(&self) -> Result<(), Error>;

    fn insert(&self, key: u64) {
        self.put(key).expect("inserts");
    }

    fn delete(&self, key: u64) {
        assert!(self.take(key).expect("deletes"));
    }

    fn contents(&self) -> Result<Seen, String> {
        let (mut seen, mut twice) = (Seen::new(), None);
        self.scan(&mut |key, value| {
            if seen.insert(key, value).is_some() {
                twice = Some(key);
            }
        })
        .map_err(text)?;
        ensure(twice.is_none(), || format!("the key {twice:?} is there twice"))?;
        Ok(seen)
    }
}

/// A process with a typed table.
#[derive(Clone, Copy)]
pub(super) struct Typed {
    pub(super) kit: Kit,
    pub(super) session: Here,
}

pub(super) fn params() -> Params {
    Params { partitions: 2, ..Params::default() }
}

impl Typed {
    pub(super) fn of(kit: Kit, table: Values) -> Self {
        let session = leak(table).bind(kit.heap).expect("the heap is of this area");
        Self { kit, session }
    }
}

impl User for Typed {
    fn create(kit: Kit) -> Self {
        Self::of(kit, Values::create(kit.area, kit.heap, &params()).expect("creates"))
    }

    fn attach(kit: Kit, handle: TableHandle) -> Result<Self, Error> {
        // SAFETY: the caller's promise.
        Ok(Self::of(kit, unsafe { Values::attach(kit.area, handle, &params()) }?))
    }

    fn kit(&self) -> &Kit {
        &self.kit
    }

    fn handle(&self) -> TableHandle {
        self.session.table().handle()
    }

    fn check(&self) -> Result<Report, Error> {
        self.session.check()
    }

    fn scan(&self, show: &mut dyn FnMut(u64, Option<[u64; 3]>)) -> Result<(), Error> {
        let mut scan = self.session.scan();
        while let Some(entry) = scan.next()? {
            let value = match entry.value() {
                Ok(value) => Some(*value),
                Err(Error::Poisoned) => None,
                Err(error) => return Err(error),
            };
            show(*entry.key(), value);
        }
        Ok(())
    }

    fn get(&self, key: u64) -> Result<Option<[u64; 3]>, Error> {
        self.session.get(&key)
    }

    fn put(&self, key: u64) -> Result<(), Error> {
        self.session.insert(&key, value(key)).map(|_| ())
    }

    fn take(&self, key: u64) -> Result<bool, Error> {
        self.session.delete(&key)
    }

    fn repair(&self, key: u64) -> Result<bool, Error> {
        let told = self.session.find_exclusive(&key).map(|_| ());
        if told != Err(Error::Poisoned) {
            return Ok(false);
        }
        self.session.repair(&key, |v| *v = value(key))
    }

    fn clear(&self) -> Result<(), Error> {
        self.session.clear()
    }

    fn trim(&self) -> Result<(), Error> {
        self.session.trim()
    }

    fn destroy(&self) -> Result<(), Error> {
        // SAFETY: the table was leaked; its copy, and others', are not used any more.
        let table = unsafe { std::ptr::read(self.session.table()) };
        // SAFETY: as above.
        unsafe { table.destroy(self.kit.heap) }
    }
}

/// A table with what was put into it.
pub(super) struct Tables<U> {
    pub(super) users: Vec<U>,
    pub(super) victim: U,
}

pub(super) fn tables(rescuers: usize, prepare: impl Fn(&Typed)) -> Tables<Typed> {
    tables_of(rescuers, prepare)
}

pub(super) fn tables_of<U: User>(rescuers: usize, prepare: impl Fn(&U)) -> Tables<U> {
    let scene = scene(rescuers);
    let witness = U::create(scene.kits[0]);
    let attach = |kit| U::attach(kit, witness.handle()).expect("attaches");
    let victim = attach(scene.victim);
    prepare(&victim);
    let rescuers = scene.kits[1..].iter().map(|kit| attach(*kit));
    Tables { users: std::iter::once(witness).chain(rescuers).collect(), victim }
}

impl<U: User> Tables<U> {
    pub(super) fn case(
        self,
        name: &'static str,
        effect: Effect,
        operate: impl Fn(&U) + 'static,
        change: impl Fn(&mut Seen) + 'static,
    ) -> Case {
        let Self { users, victim } = self;
        let witness = users[0];
        let before = witness.contents().expect("is in order");
        let mut after = before.clone();
        change(&mut after);
        let (handle, left) = (witness.handle(), (before.clone(), after.clone()));
        let heir = witness.kit().heir(move |kit| {
            let user = U::attach(kit, handle).map_err(text)?;
            recover(&user, 0, 0)?;
            judge(&user, &left.0, &left.1, effect)
        });
        Case {
            name,
            mortals: mortals(users.len() - 1),
            operate: Box::new(move || operate(&victim)),
            places: vec![witness.kit().place(), place_of(&witness)],
            recover: Box::new(move |who, order| recover(&users[who], who, order)),
            orders: 4,
            judge: Box::new(move || judge(&witness, &before, &after, effect)),
            newcomer: Box::new(finds_nothing),
            heir,
            between: false,
        }
    }

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

/// Where the partitions' locks lie: in the table's one allocation.
pub(super) fn place_of(user: &impl User) -> Place {
    let (kit, pointer) = (user.kit(), user.handle().0);
    let address = kit.area.lock_address(pointer).expect("is mapped");
    let size = kit.area.size_of_object(pointer).expect("is an object");
    let offsets = address.offset()..address.offset() + size;
    Place { slot: address.slot(), offsets, what: What::Table }
}

/// The dead are found by the namespace, the area, and the table, in any order. A rescuer may be
/// killed, and leaves no key of its own.
fn recover(user: &impl User, who: usize, order: usize) -> Result<(), String> {
    let table = || user.check().map(|_| ()).map_err(text);
    let area = || user.kit().heap.maintain().map_err(text);
    match order {
        0 => {
            user.kit().member.reap()?;
            user.kit().member.succeed()?;
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
                if who == 0 {
                    user.put(key).map_err(text)?;
                }
                user.take(key).map_err(text)?;
            }
            table()
        }
    }
}

/// What is read without a lock, before anybody has repaired anything, is no half-written value.
fn reads_whole_values(user: &impl User) -> Result<(), String> {
    for key in 0..40 {
        match user.get(key) {
            Ok(Some(found)) => {
                ensure(found == value(found[0]), || format!("{found:?} was read at {key}"))?;
            }
            Ok(None) | Err(Error::Poisoned) => {}
            Err(error) => return Err(text(error)),
        }
    }
    Ok(())
}

/// Fails unless `now` is what `effect` allows between `before` and `after`; the kind of outcome.
fn outcome(
    now: &Seen,
    before: &Seen,
    after: &Seen,
    effect: Effect,
) -> Result<&'static str, String> {
    if now == after {
        return Ok("after");
    }
    if now == before {
        return Ok("before");
    }
    let poisoned = now.values().filter(|v| v.is_none()).count();
    let only_that = |key: &u64, value: &Option<[u64; 3]>| {
        value.is_none() || before.get(key) == Some(value) || after.get(key) == Some(value)
    };
    let known = now.iter().all(|(key, value)| only_that(key, value));
    let kept = before.keys().filter(|key| after.contains_key(key)).all(|key| now.contains_key(key));
    let allowed = match effect {
        Effect::Whole => false,
        Effect::Guarded => poisoned == 1,
        Effect::Piecemeal => poisoned <= 1,
    };
    ensure(allowed && known && kept, || {
        let differs = |a: &Seen, b: &Seen| -> Vec<u64> {
            a.iter().filter(|(k, v)| b.get(k) != Some(v)).map(|(k, _)| *k).collect()
        };
        format!(
            "neither before nor after: {poisoned} poisoned, lacks {:?} of before and {:?} of \
             after, has {:?} besides before",
            differs(before, now),
            differs(after, now),
            differs(now, before)
        )
    })?;
    Ok(if poisoned == 0 { "partly" } else { "poisoned" })
}

fn judge(
    witness: &impl User,
    before: &Seen,
    after: &Seen,
    effect: Effect,
) -> Result<&'static str, String> {
    let kit = witness.kit();
    let report = witness.check().map_err(text)?;
    let area = kit.area.check(kit.member.participant).map_err(text)?;
    let (objects, pieces) = (area.objects, report.stats.allocations);
    ensure(objects == pieces && area.unpublished == 0, || {
        format!("{objects} objects ({} unpublished), {pieces} of the table", area.unpublished)
    })?;
    let now = witness.contents()?;
    let poisoned: Vec<_> = now.iter().filter(|(_, v)| v.is_none()).map(|(k, _)| *k).collect();
    ensure(report.poisoned == poisoned.len() as u64, || "poisoned entries were miscounted".into())?;
    let outcome = outcome(&now, before, after, effect)?;
    let others = kit.overwrite_free_memory()?;
    witness.check().map_err(text)?;
    ensure(witness.contents()? == now, || "memory of the table was given to others".into())?;
    others.into_iter().try_for_each(|object| kit.free(object))?;
    for key in poisoned {
        let repaired = witness.repair(key).map_err(text)?;
        ensure(repaired, || "a poisoned entry is handed out, or cannot be repaired".into())?;
        crate::explore::mark("poison repaired");
    }
    works(witness)?;
    // Many one by one take long.
    for key in now.keys().take(100) {
        ensure(witness.take(*key).map_err(text)?, || format!("the key {key} cannot be deleted"))?;
    }
    witness.clear().map_err(text)?;
    ensure(witness.check().map_err(text)?.stats.entries == 0, || "entries are left".into())?;
    witness.destroy().map_err(text)?;
    kit.is_empty(0)?;
    kit.works()?;
    kit.end()?;
    Ok(outcome)
}

/// Entries come and go, enough of them to make it grow.
pub(super) fn works(user: &impl User) -> Result<(), String> {
    let keys = 1_000_000..1_000_060;
    for key in keys.clone() {
        ensure(user.get(key).map_err(text)?.is_none(), || "is there".into())?;
        user.put(key).map_err(text)?;
    }
    for key in keys {
        let found = user.get(key).map_err(text)?;
        ensure(found == Some(value(key)), || format!("{found:?} at {key}"))?;
        ensure(user.take(key).map_err(text)?, || "is not there".into())?;
    }
    user.trim().map_err(text)?;
    user.check().map(|_| ()).map_err(text)
}

pub(super) fn fill(user: &impl User, keys: std::ops::Range<u64>) {
    keys.for_each(|key| user.insert(key));
}
