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
//! - `create`: an empty table of ours with its name, area and segment, and all of that removed
//!   again.
//! - `insert`: from an empty table to a full one, its growth included, its creation not. A table of
//!   ours has room for a thousand from the start; one of a hundred thousand is small enough to
//!   count what growth costs.
//! - `hit`, `miss`: the value read as each is to be read: a copy without a lock of ours, one word
//!   under a shared lock of the peer's. `find`, `find_miss`: under a shared lock of ours too, for
//!   values that are too long to copy, or must not change while they are looked at.
//! - `update`: an exclusive lock, one word of the value written.
//! - `delete_insert`: a pair of both for the same key.

use std::hint::black_box;

use crate::interface::{Map, Value};
use crate::measure::{Random, Stopwatch, repeat, rounds};
use crate::ours::home;
use crate::ours::table::{CoreMap, RegistryMap};
use crate::peers::dashmap::Dashmap;
use crate::work::{Contestant, Lengths, Runner, Who, Work};

/// The peer.
const DASHMAP: Who = Who::Peer("dashmap");
/// Entries of the largest table whose instructions are counted: filling one under valgrind takes a
/// few seconds.
const LARGEST_COUNTED: u64 = 100_000;

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
    let mut works = vec![Work::new("map_create", creation())];
    for (label, operation) in operations {
        for (size, entries) in [("1k", 1000), ("1M", 1_000_000)] {
            works.push(work(format!("map_{label}_{size}"), operation, entries));
        }
    }
    works.push(work("map_insert_100k".into(), Operation::Insert, 100_000));
    works
}

fn work(name: String, operation: Operation, entries: u64) -> Work {
    let contestants = vec![
        Contestant::new(Who::Registry, move || runner::<RegistryMap>(operation, entries)),
        Contestant::new(Who::Cores, move || runner::<CoreMap>(operation, entries)),
        Contestant::new(DASHMAP, move || runner::<Dashmap>(operation, entries)),
    ];
    let work = Work::new(name, contestants);
    match operation {
        _ if entries > LARGEST_COUNTED => work,
        Operation::Insert => work.counted(Lengths::rounds(entries, 1)),
        _ => work.counted(Lengths::ALIKE),
    }
}

fn creation() -> Vec<Contestant> {
    let ours = || {
        let registry = home::registry();
        Runner::new(move |operations| {
            repeat(operations, || {
                drop(registry.hash::<u64, Value>("map").expect("create a table"));
                registry.remove("map").expect("remove it");
            })
        })
    };
    let peer = || {
        Runner::new(|operations| {
            repeat(operations, || {
                black_box(Dashmap::create());
            })
        })
    };
    vec![Contestant::new(Who::Registry, ours), Contestant::new(DASHMAP, peer)]
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

fn runner<M: Map>(operation: Operation, entries: u64) -> Runner {
    match operation {
        Operation::Insert => Runner::new(move |operations| {
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
        Operation::Hit => hit::<M>(entries, M::get),
        Operation::Miss => miss::<M>(entries, M::get),
        Operation::Find => hit::<M>(entries, M::find),
        Operation::FindMiss => miss::<M>(entries, M::find),
        Operation::Update => {
            let map: M = fill(entries);
            let mut random = Random::new(2);
            Runner::new(move |operations| {
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
            Runner::new(move |operations| {
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
fn hit<M: Map>(entries: u64, look: impl Fn(&M, u64) -> Option<u64> + 'static) -> Runner {
    let map: M = fill(entries);
    let mut random = Random::new(1);
    Runner::new(move |operations| {
        let mut sum = 0;
        let sample = repeat(operations, || {
            sum += look(&map, key(random.below(entries))).unwrap_or(0);
        });
        assert!(black_box(sum) >= operations, "every key is there, no word is zero");
        sample
    })
}

/// Looks for keys that are not there.
fn miss<M: Map>(entries: u64, look: impl Fn(&M, u64) -> Option<u64> + 'static) -> Runner {
    let map: M = fill(entries);
    let mut random = Random::new(1);
    Runner::new(move |operations| {
        let mut found = 0;
        let sample = repeat(operations, || {
            found += u64::from(look(&map, key(10 * entries + random.below(entries))).is_some());
        });
        assert_eq!(black_box(found), 0);
        sample
    })
}
