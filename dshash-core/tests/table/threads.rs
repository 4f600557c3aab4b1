//! Threads that read without locks while others write, grow and shrink.

use core::sync::atomic::{AtomicBool, Ordering};

use dshash_core::{Params, Table};
use sim::HeapMachine;

use crate::support::{new_thread, start};

/// A value whose words must agree.
fn pattern(key: u64, version: u64) -> [u64; 6] {
    core::array::from_fn(|i| (key << 32 | version).rotate_left(i as u32 * 7))
}

fn is_whole(key: u64, value: &[u64; 6]) -> bool {
    let version = value[0] & 0xffff_ffff;
    *value == pattern(key, version)
}

#[test]
fn no_reader_ever_sees_a_torn_value() {
    const KEYS: u64 = 3000;
    let machine = HeapMachine::new();
    let process = start(&machine);
    let (area, heap) = process.create();
    let ns = process.ns;
    let params = Params { partitions: 2, ..Params::default() };
    let table = Table::<u64, [u64; 6], _>::create(area, heap, &params).unwrap();
    // These stay; the others come and go, so that the index grows and shrinks around them.
    let session = table.bind(heap).unwrap();
    for key in 0..KEYS / 10 {
        session.insert(&(key * 10), pattern(key * 10, 0)).unwrap();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2u64 {
            let (table, stop) = (&table, &stop);
            scope.spawn(move || {
                let heap = new_thread(ns, area);
                let session = table.bind(heap).unwrap();
                let mut key = reader;
                while !stop.load(Ordering::Relaxed) {
                    key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let wanted = (key >> 33) % KEYS;
                    match session.get(&wanted).unwrap() {
                        Some(value) => assert!(is_whole(wanted, &value), "torn: {value:x?}"),
                        None => assert!(wanted % 10 != 0, "{wanted} was always there"),
                    }
                }
            });
        }
        let heap = new_thread(ns, area);
        let session = table.bind(heap).unwrap();
        for version in 1..30 {
            for key in 0..KEYS {
                if key % 10 == 0 {
                    let mut guard = session.find_exclusive(&key).unwrap().unwrap();
                    *guard = pattern(key, version);
                } else {
                    session.insert(&key, pattern(key, version)).unwrap();
                }
            }
            for key in (0..KEYS).filter(|key| key % 10 != 0) {
                assert!(session.delete(&key).unwrap());
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(session.check().unwrap().stats.entries, KEYS / 10);
}

#[test]
fn counts_of_many_threads_add_up() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 5000;
    let machine = HeapMachine::new();
    let process = start(&machine);
    let (area, heap) = process.create();
    let ns = process.ns;
    let params = Params { partitions: 4, ..Params::default() };
    let table = Table::<u64, u64, _>::create(area, heap, &params).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let table = &table;
            scope.spawn(move || {
                let heap = new_thread(ns, area);
                let session = table.bind(heap).unwrap();
                for round in 0..ROUNDS {
                    *session.entry(&(round % 100)).unwrap().or_insert(0).unwrap() += 1;
                }
            });
        }
    });
    let session = table.bind(heap).unwrap();
    for key in 0..100 {
        assert_eq!(session.get(&key).unwrap(), Some(THREADS * ROUNDS / 100));
    }
    session.check().unwrap();
}
