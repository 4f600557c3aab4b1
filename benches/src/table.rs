//! Works on the hash table: entries of 64 bytes, a u64 key and a value of 56 bytes, uniformly
//! random accesses, a thousand entries (all in cache) and a million (hardly any).
//!
//! The peer is dashmap 6, the usual concurrent map inside one process, with a fast hash function
//! and the C library's allocator, whose pages have the same 4 KiB as shared memory's here. Its keys
//! and values live in the process alone and go with it.
//!
//! The sequence of keys goes on from sample to sample: a sample that began it anew would visit the
//! same few ten thousand of a million keys each time, and find them in the caches.
//!
//! - `create`: an empty table of ours with its name, area and segment, and all of that removed again.
//! - `insert`: from an empty table to a full one, its growth included, its creation not.
//! - `hit`, `miss`: the value read as each is to be read: a copy without a lock of ours, one word
//!   under a shared lock of the peer's. `find`, `find_miss`: under a shared lock of ours too, for
//!   values that are too long to copy, or must not change while they are looked at.
//! - `update`: an exclusive lock, one word of the value written.
//! - `delete_insert`: a pair of both for the same key.

use std::hint::black_box;

use dashmap::DashMap;
use rapidhash::fast::GlobalState;

use crate::measure::{Contestant, OURS, Random, Stopwatch, Work, repeat, rounds};
use crate::ours::table::{OurMap, our_creation};

/// The value of an entry.
pub type Value = [u64; 7];

/// A map under test.
pub trait Map: Sized + 'static {
    /// An empty one.
    fn create() -> Self;
    /// Inserts a key that is not there, or overwrites.
    fn insert(&self, key: u64, value: &Value);
    /// A word of the key's value.
    fn get(&self, key: u64) -> Option<u64>;
    /// A word of the key's value, looked at under a lock.
    fn find(&self, key: u64) -> Option<u64>;
    /// Writes a word of the key's value; whether the key was there.
    fn update(&self, key: u64, word: u64) -> bool;
    /// Deletes; whether the key was there.
    fn delete(&self, key: u64) -> bool;
}

#[derive(Clone, Copy)]
enum Operation {
    Insert,
    Hit,
    Miss,
    Find,
    FindMiss,
    Update,
    DeleteInsert,
}

/// All works of the group.
#[must_use]
pub fn works() -> Vec<Work> {
    let operations = [
        ("insert", Operation::Insert),
        ("hit", Operation::Hit),
        ("miss", Operation::Miss),
        ("find", Operation::Find),
        ("find_miss", Operation::FindMiss),
        ("update", Operation::Update),
        ("delete_insert", Operation::DeleteInsert),
    ];
    let mut works = vec![Work::new("map_create", || {
        vec![
            our_creation(),
            Contestant::new("dashmap", |operations| {
                repeat(operations, || {
                    black_box(DashMap::<u64, Value, GlobalState>::create());
                })
            }),
        ]
    })];
    for (label, operation) in operations {
        for (size, entries) in [("1k", 1000), ("1M", 1_000_000)] {
            works.push(Work::new(format!("map_{label}_{size}"), move || {
                vec![
                    contestant::<OurMap>(OURS, operation, entries),
                    contestant::<DashMap<u64, Value, GlobalState>>("dashmap", operation, entries),
                ]
            }));
        }
    }
    works
}

/// The n-th key: spread over all 64 bits.
#[inline(always)]
fn key(n: u64) -> u64 {
    n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

const VALUE: Value = [7; 7];

fn fill<M: Map>(entries: u64) -> M {
    let map = M::create();
    for n in 0..entries {
        map.insert(key(n), &VALUE);
    }
    map
}

fn contestant<M: Map>(name: &'static str, operation: Operation, entries: u64) -> Contestant {
    match operation {
        Operation::Insert => Contestant::new(name, move |operations| {
            rounds(operations, entries, || {
                let map = M::create();
                let stopwatch = Stopwatch::start();
                for n in 0..entries {
                    map.insert(key(n), &VALUE);
                }
                let elapsed = stopwatch.elapsed();
                assert!(map.get(key(entries / 2)).is_some());
                elapsed
            })
        }),
        Operation::Hit => hit::<M>(name, entries, M::get),
        Operation::Miss => miss::<M>(name, entries, M::get),
        Operation::Find => hit::<M>(name, entries, M::find),
        Operation::FindMiss => miss::<M>(name, entries, M::find),
        Operation::Update => {
            let map: M = fill(entries);
            let mut random = Random::new(2);
            Contestant::new(name, move |operations| {
                let mut found = 0;
                let sample = repeat(operations, || {
                    found += u64::from(map.update(key(random.below(entries)), operations));
                });
                assert_eq!(black_box(found), operations);
                sample
            })
        }
        Operation::DeleteInsert => {
            let map: M = fill(entries);
            let mut random = Random::new(3);
            Contestant::new(name, move |operations| {
                let mut found = 0;
                let sample = repeat(operations, || {
                    let key = key(random.below(entries));
                    found += u64::from(map.delete(key));
                    map.insert(key, &VALUE);
                });
                assert_eq!(black_box(found), operations);
                sample
            })
        }
    }
}

/// Looks at the values of keys that are there.
fn hit<M: Map>(
    name: &'static str,
    entries: u64,
    look: impl Fn(&M, u64) -> Option<u64> + 'static,
) -> Contestant {
    let map: M = fill(entries);
    let mut random = Random::new(1);
    Contestant::new(name, move |operations| {
        let mut sum = 0;
        let sample = repeat(operations, || {
            sum += look(&map, key(random.below(entries))).unwrap_or(0);
        });
        assert!(black_box(sum) >= operations, "every key is there, no word is zero");
        sample
    })
}

/// Looks for keys that are not there.
fn miss<M: Map>(
    name: &'static str,
    entries: u64,
    look: impl Fn(&M, u64) -> Option<u64> + 'static,
) -> Contestant {
    let map: M = fill(entries);
    let mut random = Random::new(1);
    Contestant::new(name, move |operations| {
        let mut found = 0;
        let sample = repeat(operations, || {
            found += u64::from(look(&map, key(10 * entries + random.below(entries))).is_some());
        });
        assert_eq!(black_box(found), 0);
        sample
    })
}

impl Map for DashMap<u64, Value, GlobalState> {
    fn create() -> Self {
        DashMap::with_hasher(GlobalState::new())
    }

    #[inline]
    fn insert(&self, key: u64, value: &Value) {
        DashMap::insert(self, key, *value);
    }

    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        DashMap::get(self, &key).map(|value| value[0])
    }

    #[inline]
    fn find(&self, key: u64) -> Option<u64> {
        Map::get(self, key)
    }

    #[inline]
    fn update(&self, key: u64, word: u64) -> bool {
        DashMap::get_mut(self, &key).map(|mut value| value[0] = word).is_some()
    }

    #[inline]
    fn delete(&self, key: u64) -> bool {
        DashMap::remove(self, &key).is_some()
    }
}
