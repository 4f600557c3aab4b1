//! The untyped table, with keys that all have the same hash: what does not fit into a home's window
//! goes into the overflow, a chain of buckets.

use std::ops::Range;

use dshash_core::keys::KeyFunctions;
use dshash_core::raw::{RawParams, RawSession, RawTable};
use dshash_core::{Error, Report, TableHandle, hash::Secrets};
use dsm_core::sync::compiler_fence;

use super::area_kit::{A, Kit};
use super::table_kit::{Effect, Seen, User, fill, tables_of, value};
use crate::case::{Case, Operation};
use crate::member::leak;

const CASES: [Operation; 8] = [
    Operation {
        name: "raw-insert",
        must: &["before", "after", "poisoned", "holds a partition", "taken over"],
        make: insert,
    },
    Operation {
        name: "raw-change",
        must: &["before", "after", "poisoned", "holds a partition"],
        make: change,
    },
    Operation { name: "raw-delete", must: &["before", "after", "holds a partition"], make: delete },
    Operation {
        name: "raw-scan",
        must: &["before", "after", "partly", "poisoned", "holds a partition"],
        make: scan,
    },
    Operation {
        name: "overflow-add-bucket",
        must: &["before", "after", "holds a partition and one of the area", "taken over"],
        make: add_bucket,
    },
    Operation {
        name: "overflow-insert",
        must: &["before", "after", "holds a partition"],
        make: overflow_insert,
    },
    Operation {
        name: "overflow-drop-bucket",
        must: &["before", "after", "holds a partition and one of the area"],
        make: drop_bucket,
    },
    Operation {
        name: "overflow-scan-delete",
        must: &["before", "after", "partly", "holds a partition"],
        make: overflow_scan,
    },
];

pub(super) const ALL: &[Operation] = &CASES;

/// All keys from this one on have one hash.
const CROWD: u64 = 1 << 32;

/// Numbers as keys.
#[derive(Clone, Copy)]
struct Numbers;

impl KeyFunctions for Numbers {
    fn identity(&self) -> u64 {
        1
    }
    fn check(&self, key: &[u8], field: usize) -> Result<(), Error> {
        if key.len() == field { Ok(()) } else { Err(Error::KeyTooLong(key.len(), field)) }
    }
    fn hash(&self, key: &[u8], secrets: &Secrets) -> u64 {
        let crowded = u64::from_le_bytes(*key.first_chunk().expect("is a number")) >= CROWD;
        if crowded { 1 } else { secrets.hash_bytes(key) }
    }
    fn equal(&self, key: &[u8], field: &[u8]) -> bool {
        key == field
    }
    fn copy(&self, field: &mut [u8], key: &[u8]) {
        field.copy_from_slice(key);
    }
}

/// A process with an untyped table.
#[derive(Clone, Copy)]
struct Untyped {
    kit: Kit,
    table: &'static RawTable<Numbers, &'static A>,
    session: &'static RawSession<'static, Numbers, &'static A>,
}

fn params() -> RawParams {
    RawParams { partitions: 2, ..RawParams::new(8, 32) }
}

fn bytes(value: [u64; 3]) -> [u8; 24] {
    let mut bytes = [0; 24];
    for (to, word) in bytes.chunks_exact_mut(8).zip(value) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |chunk: &[u8]| u64::from_le_bytes(*chunk.first_chunk().expect("eight bytes"));
    bytes.chunks_exact(8).map(word).collect()
}

fn triple(bytes: &[u8]) -> [u64; 3] {
    words(bytes).try_into().expect("three words")
}

impl Untyped {
    fn of(kit: Kit, table: RawTable<Numbers, &'static A>) -> Self {
        let table = leak(table);
        let session = leak(table.bind(kit.heap).expect("the heap is of this area"));
        Self { kit, table, session }
    }
}

impl User for Untyped {
    fn create(kit: Kit) -> Self {
        let table = RawTable::create(kit.area, kit.heap, Numbers, &params());
        Self::of(kit, table.expect("creates"))
    }

    fn attach(kit: Kit, handle: TableHandle) -> Result<Self, Error> {
        // SAFETY: the caller's promise.
        let table = unsafe { RawTable::attach(kit.area, handle, Numbers, &params()) };
        Ok(Self::of(kit, table?))
    }

    fn kit(&self) -> &Kit {
        &self.kit
    }

    fn handle(&self) -> TableHandle {
        self.table.handle()
    }

    fn check(&self) -> Result<Report, Error> {
        self.session.check()
    }

    fn scan(&self, show: &mut dyn FnMut(u64, Option<[u64; 3]>)) -> Result<(), Error> {
        let mut scan = self.session.scan();
        while let Some((key, value)) = scan.next()? {
            match value {
                Ok(value) => show(words(key)[0], Some(triple(value))),
                Err(Error::Poisoned) => show(words(key)[0], None),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn get(&self, key: u64) -> Result<Option<[u64; 3]>, Error> {
        let found = self.session.find(&key.to_le_bytes())?;
        Ok(found.map(|guard| triple(guard.value())))
    }

    fn put(&self, key: u64) -> Result<(), Error> {
        let (mut guard, _) = self.session.find_or_insert(&key.to_le_bytes())?;
        guard.value_mut().copy_from_slice(&bytes(value(key)));
        Ok(())
    }

    fn take(&self, key: u64) -> Result<bool, Error> {
        self.session.delete(&key.to_le_bytes())
    }

    fn repair(&self, key: u64) -> Result<bool, Error> {
        let told = self.session.find_exclusive(&key.to_le_bytes()).map(|_| ());
        let guard = self.session.find_poisoned(&key.to_le_bytes())?;
        let (Err(Error::Poisoned), Some(mut guard)) = (told, guard) else { return Ok(false) };
        guard.value_mut().copy_from_slice(&bytes(value(key)));
        guard.clear_poison();
        Ok(true)
    }

    fn clear(&self) -> Result<(), Error> {
        self.session.clear()
    }

    fn trim(&self) -> Result<(), Error> {
        self.session.trim()
    }

    fn destroy(&self) -> Result<(), Error> {
        // SAFETY: the table was leaked; its copy, and others', are not used any more.
        let table = unsafe { std::ptr::read(self.table) };
        // SAFETY: as above.
        unsafe { table.destroy(self.kit.heap) }
    }
}

fn insert(rescuers: usize) -> Case {
    tables_of(rescuers, |user: &Untyped| fill(user, 0..9)).case(
        "raw-insert",
        Effect::Guarded,
        |user| user.insert(9),
        |seen| {
            seen.insert(9, Some(value(9)));
        },
    )
}

fn change(rescuers: usize) -> Case {
    tables_of(rescuers, |user: &Untyped| fill(user, 0..9)).case(
        "raw-change",
        Effect::Guarded,
        |user| {
            let guard = user.session.find_exclusive(&3_u64.to_le_bytes()).expect("finds");
            let mut guard = guard.expect("is there");
            for (to, from) in guard.value_mut().chunks_exact_mut(8).zip(value(78)) {
                to.copy_from_slice(&from.to_le_bytes());
                compiler_fence();
            }
        },
        |seen| {
            seen.insert(3, Some(value(78)));
        },
    )
}

fn delete(rescuers: usize) -> Case {
    tables_of(rescuers, |user: &Untyped| fill(user, 0..9)).deleting("raw-delete", 3)
}

fn scan(rescuers: usize) -> Case {
    tables_of(rescuers, |user: &Untyped| fill(user, 0..12)).case(
        "raw-scan",
        Effect::Piecemeal,
        |user| {
            let mut scan = user.session.scan_mut();
            while let Some(mut entry) = scan.next().expect("goes on") {
                let key = words(entry.key())[0];
                if key.is_multiple_of(2) {
                    entry.delete().expect("deletes");
                } else {
                    entry.value_mut().copy_from_slice(&bytes(value(key + 100)));
                }
            }
        },
        |seen: &mut Seen| {
            seen.retain(|key, _| key % 2 == 1);
            seen.iter_mut().for_each(|(key, v)| *v = Some(value(key + 100)));
        },
    )
}

fn crowd(count: u64) -> Range<u64> {
    CROWD..CROWD + count
}

/// A table whose overflow has one more bucket for the last of the keys that fill it: all buckets of
/// the window and of the overflow are full before. The index has grown as far as it does.
const FULL: u64 = 48 + 24;

fn add_bucket(rescuers: usize) -> Case {
    let prepare = |user: &Untyped| fill(user, crowd(FULL));
    tables_of(rescuers, prepare).case(
        "overflow-add-bucket",
        Effect::Guarded,
        |user| user.insert(CROWD + FULL),
        |seen| {
            seen.insert(CROWD + FULL, Some(value(CROWD + FULL)));
        },
    )
}

fn overflow_insert(rescuers: usize) -> Case {
    let prepare = |user: &Untyped| fill(user, crowd(FULL + 4));
    tables_of(rescuers, prepare).case(
        "overflow-insert",
        Effect::Guarded,
        |user| user.insert(CROWD + FULL + 4),
        |seen| {
            seen.insert(CROWD + FULL + 4, Some(value(CROWD + FULL + 4)));
        },
    )
}

/// The only entry of the first bucket goes, and with it the bucket.
fn drop_bucket(rescuers: usize) -> Case {
    let prepare = |user: &Untyped| fill(user, crowd(FULL + 1));
    tables_of(rescuers, prepare).deleting("overflow-drop-bucket", CROWD + FULL)
}

fn overflow_scan(rescuers: usize) -> Case {
    let prepare = |user: &Untyped| fill(user, crowd(FULL + 4));
    tables_of(rescuers, prepare).case(
        "overflow-scan-delete",
        Effect::Piecemeal,
        |user| {
            let mut scan = user.session.scan_mut();
            while let Some(entry) = scan.next().expect("goes on") {
                if words(entry.key())[0] >= CROWD + 45 {
                    entry.delete().expect("deletes");
                }
            }
        },
        |seen: &mut Seen| seen.retain(|key, _| *key < CROWD + 45),
    )
}
