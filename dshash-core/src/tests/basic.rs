//! One process, one thread: every operation does what it says.

use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use crate::layout::FIRST_ENTRIES;
use crate::testing::{TestStore, World};
use crate::{Entry, Error, Parameter, Params, Session, Table};

type Small<'n> = Table<u64, u64, TestStore<'n>>;

fn small(partitions: u32) -> Params {
    Params { partitions, ..Params::default() }
}

#[test]
fn finds_what_was_inserted_and_nothing_else() {
    let world = World::new();
    let process = world.process();
    let table = Small::create(world.store(&process), process.heap, &small(4)).unwrap();
    let session = table.bind(process.heap).unwrap();
    for i in 0..10_000u64 {
        assert_eq!(session.insert(&i, i * 3).unwrap(), None);
    }
    assert_eq!(table.len(), 10_000);
    for i in 0..10_000u64 {
        assert_eq!(session.get(&i).unwrap(), Some(i * 3));
        assert_eq!(*session.find(&i).unwrap().unwrap(), i * 3);
        assert_eq!(session.insert(&i, i * 5).unwrap(), Some(i * 3));
    }
    assert_eq!(session.get(&10_000).unwrap(), None);
    assert!(session.find_exclusive(&10_000).unwrap().is_none());
    let report = session.check().unwrap();
    assert_eq!(report.stats.entries, 10_000);
    assert!(report.stats.slots < 2 * 10_000, "{report:?}");
    for i in 0..10_000u64 {
        assert!(session.delete(&i).unwrap());
        assert!(!session.delete(&i).unwrap());
        if i % 1000 == 0 {
            session.check().unwrap();
        }
    }
    let report = session.check().unwrap();
    assert_eq!(report.stats.entries, 0);
    assert!(report.stats.bytes < 32 << 10, "{report:?}");
    session.trim().unwrap();
    // SAFETY: nobody else uses the table.
    unsafe { table.destroy(process.heap) }.unwrap();
    assert_eq!(world.pool.live(), 0);
}

#[test]
fn few_entries_need_no_chunk() {
    let world = World::new();
    let process = world.process();
    let table = Small::create(world.store(&process), process.heap, &small(1)).unwrap();
    let session = table.bind(process.heap).unwrap();
    for round in 0..3 {
        for i in 0..FIRST_ENTRIES as u64 {
            session.insert(&i, i).unwrap();
        }
        let stats = session.check().unwrap().stats;
        assert_eq!((stats.chunks, stats.capacity), (0, FIRST_ENTRIES as u64), "{round}");
        session.insert(&100, 100).unwrap();
        assert_eq!(session.check().unwrap().stats.chunks, 1);
        assert!(session.delete(&100).unwrap());
        // What is left lies outside the chunk.
        session.trim().unwrap();
        assert_eq!(session.check().unwrap().stats.chunks, 0);
        session.insert(&100, 100).unwrap();
        for i in (0..FIRST_ENTRIES as u64).chain([100]) {
            assert!(session.delete(&i).unwrap());
        }
        assert_eq!(session.check().unwrap().stats.chunks, 0);
        assert_eq!(world.pool.live(), 1);
    }
}

/// The last entry of a chunk ends with the last segment that an area can have.
#[test]
fn a_chunk_at_the_very_end_of_the_area() {
    let world = World::with_pool(256 << 10);
    let process = world.process();
    let before = world.reserved(&process);
    let table =
        Table::<u32, u32, _>::create(world.store(&process), process.heap, &small(1)).unwrap();
    let session = table.bind(process.heap).unwrap();
    let mut next = 0..;
    let mut insert = |count: usize| {
        for key in next.by_ref().take(count) {
            session.insert(&key, !key).unwrap();
        }
    };
    insert(FIRST_ENTRIES);
    // A head of 16 bytes, and 31 entries of as many.
    world.pool.go_to_the_end(256 << 10, 512);
    insert(1);
    let stats = session.check().unwrap().stats;
    assert_eq!((stats.chunks, stats.capacity), (1, FIRST_ENTRIES as u64 + 31));
    insert(30);
    world.pool.go_to_the_end(256 << 10, 64 << 10);
    insert(1);
    assert_eq!(world.reserved(&process), before, "an entry where the area begins");
    assert_eq!(session.check().unwrap().stats.chunks, 2, "the first one is used up");
    for key in 0..FIRST_ENTRIES as u32 + 32 {
        assert_eq!(session.get(&key).unwrap(), Some(!key));
    }
    session.clear().unwrap();
    session.trim().unwrap();
    session.check().unwrap();
}

#[test]
fn entries_too_long_to_be_part_of_the_table() {
    let world = World::new();
    let process = world.process();
    let table = Table::<u64, [u64; 250], _>::create(world.store(&process), process.heap, &small(1))
        .unwrap();
    let session = table.bind(process.heap).unwrap();
    for _ in 0..3 {
        for i in 0..9 {
            session.insert(&i, [i; 250]).unwrap();
        }
        assert!(session.check().unwrap().stats.chunks > 1);
        for i in 0..9 {
            assert_eq!(session.get(&i).unwrap(), Some([i; 250]));
            assert!(session.delete(&i).unwrap());
        }
        // One is kept for the next insertion.
        assert_eq!(session.check().unwrap().stats.chunks, 1);
    }
    // SAFETY: nobody else uses the table.
    unsafe { table.destroy(process.heap) }.unwrap();
    assert_eq!(world.pool.live(), 0);
}

#[test]
fn entries_and_guards() {
    let world = World::new();
    let process = world.process();
    let table = Small::create(world.store(&process), process.heap, &small(4)).unwrap();
    let session = table.bind(process.heap).unwrap();
    *session.entry(&1).unwrap().or_insert(0).unwrap() += 1;
    *session.entry(&1).unwrap().and_modify(|v| *v += 10).or_insert(0).unwrap() += 1;
    assert_eq!(session.get(&1).unwrap(), Some(12));
    let (guard, found) = session.find_or_insert(&2, || 7).unwrap();
    assert!(!found && *guard == 7 && *guard.key() == 2);
    drop(guard);
    match session.entry(&2).unwrap() {
        Entry::Occupied(entry) => entry.delete().unwrap(),
        Entry::Vacant(_) => panic!(),
    }
    assert_eq!(session.get(&2).unwrap(), None);
    let mut guard = session.find_exclusive(&1).unwrap().unwrap();
    guard.poison();
    drop(guard);
    assert_eq!(session.get(&1), Err(Error::Poisoned));
    assert!(matches!(session.find(&1), Err(Error::Poisoned)));
    assert!(matches!(session.entry(&1), Err(Error::Poisoned)));
    assert!(session.contains(&1).unwrap());
    assert!(session.repair(&1, |v| *v = 99).unwrap());
    let mut guard = session.find_exclusive(&1).unwrap().unwrap();
    guard.poison();
    drop(guard);
    // A whole value in its place heals it, and the one before is not handed out.
    assert_eq!(session.insert(&1, 98), Ok(None));
    assert_eq!(session.insert(&1, 99), Ok(Some(98)));
    assert!(!session.repair(&1, |_| panic!()).unwrap());
    assert_eq!(session.get(&1).unwrap(), Some(99));
    session.check().unwrap();
}

#[test]
fn a_second_call_under_a_guard() {
    let world = World::new();
    let process = world.process();
    let table = Small::create(world.store(&process), process.heap, &small(16)).unwrap();
    let session = table.bind(process.heap).unwrap();
    for i in 0..100u64 {
        session.insert(&i, i).unwrap();
    }
    // Whatever partitions the two keys lie in.
    for i in 0..100u64 {
        let guard = session.find(&0).unwrap().unwrap();
        assert_eq!(*session.find(&i).unwrap().unwrap(), i);
        assert_eq!(session.get(&i).unwrap(), Some(i));
        assert_eq!(session.delete(&i), Err(Error::WouldDeadlock));
        assert!(matches!(session.find_exclusive(&i), Err(Error::WouldDeadlock)));
        assert!(matches!(session.entry(&i), Err(Error::WouldDeadlock)));
        drop(guard);
        let guard = session.find_exclusive(&0).unwrap().unwrap();
        assert!(matches!(session.find(&i), Err(Error::WouldDeadlock)));
        assert_eq!(session.get(&i), Err(Error::WouldDeadlock));
        assert_eq!(session.get_many(&[i], |_, _| panic!()), Err(Error::WouldDeadlock));
        assert_eq!(session.insert(&i, 0), Err(Error::WouldDeadlock));
        assert!(matches!(session.scan().next(), Err(Error::WouldDeadlock)));
        assert!(matches!(session.scan_mut().next(), Err(Error::WouldDeadlock)));
        drop(guard);
    }
    // Another table is another matter.
    let other = Small::create(world.store(&process), process.heap, &small(16)).unwrap();
    let guard = session.find_exclusive(&0).unwrap().unwrap();
    other.bind(process.heap).unwrap().insert(&1, 1).unwrap();
    drop(guard);
}

#[test]
fn scans_see_everything_once_and_delete_on_the_way() {
    let world = World::new();
    let process = world.process();
    let table = Small::create(world.store(&process), process.heap, &small(8)).unwrap();
    let session = table.bind(process.heap).unwrap();
    for i in 0..5000u64 {
        session.insert(&i, i).unwrap();
    }
    let mut seen = BTreeMap::new();
    let mut scan = session.scan();
    while let Some(entry) = scan.next().unwrap() {
        assert_eq!(seen.insert(*entry.key(), *entry.value().unwrap()), None);
        assert_eq!(session.get(entry.key()).unwrap(), Some(*entry.key()));
    }
    scan.end();
    assert_eq!(seen.len(), 5000);
    let mut scan = session.scan_mut();
    while let Some(mut entry) = scan.next().unwrap() {
        if *entry.key() % 3 == 0 {
            entry.delete().unwrap();
        } else {
            *entry.value_mut() += 1;
        }
    }
    drop(scan);
    assert_eq!(session.check().unwrap().stats.entries, 5000 - 1667);
    for i in 0..5000 {
        let expected = if i % 3 == 0 { None } else { Some(i + 1) };
        assert_eq!(session.get(&i).unwrap(), expected);
    }
    // Entries inserted ahead are seen: by another thread, since this one holds the scan.
    session.clear().unwrap();
    session.insert(&0, 0).unwrap();
    let ahead: Vec<u64> = {
        let first = table.core.partition_of(session.hash(&0));
        (1..1000).filter(|k| table.core.partition_of(session.hash(k)) > first).collect()
    };
    let other = process.thread();
    let other = table.bind(other).unwrap();
    let mut scan = session.scan_mut();
    let mut count = 0;
    while let Some(entry) = scan.next().unwrap() {
        if *entry.key() == 0 {
            for key in &ahead {
                other.insert(key, *key).unwrap();
            }
        }
        count += 1;
    }
    assert_eq!(count, ahead.len() + 1);
}

#[test]
fn many_keys_at_once() {
    let world = World::new();
    let process = world.process();
    let table = Small::create(world.store(&process), process.heap, &small(8)).unwrap();
    let session = table.bind(process.heap).unwrap();
    for i in 0..1000u64 {
        session.insert(&i, !i).unwrap();
    }
    let keys: Vec<u64> = (0..100).map(|i| i * 20).collect();
    let mut seen = Vec::new();
    session.get_many(&keys, |i, value| seen.push((i, value.unwrap()))).unwrap();
    let expected: Vec<_> =
        keys.iter().enumerate().map(|(i, k)| (i, (*k < 1000).then_some(!k))).collect();
    assert_eq!(seen, expected);
}

#[test]
fn what_does_not_fit_is_refused_with_both_sides() {
    let world = World::new();
    let process = world.process();
    let params = Params { partitions: 4, type_tag: 7 };
    let table = Small::create(world.store(&process), process.heap, &params).unwrap();
    let handle = table.handle();
    // SAFETY: a table of that handle; wrong types are what is tested.
    let other = unsafe { Table::<u32, u64, _>::attach(world.store(&process), handle, &params) };
    let error = other.err().unwrap();
    assert_eq!(error, Error::Mismatch(Parameter::KeySize, 8, 4));
    assert_eq!(
        std::format!("{error}"),
        "the table was created with key size in bytes 8, this process asks for 4"
    );
    // SAFETY: as above.
    let other = unsafe { Table::<u64, u32, _>::attach(world.store(&process), handle, &params) };
    assert_eq!(other.err().unwrap(), Error::Mismatch(Parameter::EntrySize, 16, 12));
    let tag = Params { type_tag: 8, ..params };
    // SAFETY: as above.
    let other = unsafe { Small::attach(world.store(&process), handle, &tag) };
    assert_eq!(other.err().unwrap(), Error::Mismatch(Parameter::TypeTag, 7, 8));
    let elsewhere = crate::TableHandle(dsa_core::DsaPointer::from_raw(handle.0.raw() + 64));
    // SAFETY: as above.
    let other = unsafe { Small::attach(world.store(&process), elsewhere, &params) };
    assert_eq!(other.err().unwrap(), Error::NotATable);
    for partitions in [0, 3, 2048] {
        let params = small(partitions);
        let made = Small::create(world.store(&process), process.heap, &params);
        assert_eq!(made.err().unwrap(), Error::Partitions(partitions));
    }
    // SAFETY: nobody else uses the table.
    unsafe { table.destroy(process.heap) }.unwrap();
    assert_eq!(world.pool.live(), 0);
}

#[test]
fn no_memory_is_an_error_that_changes_nothing() {
    let world = World::new();
    let process = world.process();
    world.pool.fail_after(Some(0));
    let made = Small::create(world.store(&process), process.heap, &small(4));
    assert!(matches!(made.err(), Some(Error::Memory(_))));
    world.pool.fail_after(None);
    let table = Small::create(world.store(&process), process.heap, &small(1)).unwrap();
    let session = table.bind(process.heap).unwrap();
    for i in 0..3000u64 {
        // Every allocation fails at first.
        for allowed in 0.. {
            world.pool.fail_after(Some(allowed));
            match session.insert(&i, i) {
                Ok(old) => {
                    assert_eq!(old, None);
                    break;
                }
                Err(Error::Memory(_)) => assert_eq!(table.len(), i),
                Err(error) => panic!("{error}"),
            }
            assert_eq!(session.get(&i).unwrap(), None);
        }
        if i % 100 == 0 {
            session.check().unwrap();
        }
    }
    world.pool.fail_after(None);
    assert_eq!(session.check().unwrap().stats.entries, 3000);
    for i in 0..3000u64 {
        assert_eq!(session.get(&i).unwrap(), Some(i));
    }
    session.clear().unwrap();
    session.check().unwrap();
    // SAFETY: nobody else uses the table.
    unsafe { table.destroy(process.heap) }.unwrap();
    assert_eq!((world.pool.live(), world.pool.bytes()), (0, 0));
}

#[test]
fn dumps_and_figures() {
    let world = World::new();
    let process = world.process();
    let table = Small::create(world.store(&process), process.heap, &small(2)).unwrap();
    let session = table.bind(process.heap).unwrap();
    let text = |session: &Session<'_, u64, u64, TestStore<'_>>| {
        let mut text = String::new();
        session.dump(&mut text).unwrap();
        text
    };
    assert!(text(&session).contains("0 entries in 96 slots, 2 segments"), "{}", text(&session));
    session.insert(&1, 1).unwrap();
    assert!(text(&session).contains("1 entries in 96 slots"), "{}", text(&session));
    assert_eq!(session.stats().unwrap().entries, 1);
    assert_eq!(session.partition_stats(2), Err(Error::Partitions(2)));
}
