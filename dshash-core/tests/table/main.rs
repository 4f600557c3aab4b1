//! Tables in areas of the simulated machine: several processes and threads in one test.
#![cfg(not(loom))]

mod model;
mod raw;
mod support;
mod threads;
#[cfg(any(unix, windows))]
mod unmapped;

use core::sync::atomic::{AtomicU64, Ordering};

use dshash_core::{Error, Parameter, Params, Table};
use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{HeldMode, RawLock};
use dsm_core::namespace::NamespaceConfig;
use sim::HeapMachine;
use static_assertions::{assert_impl_all, assert_not_impl_any};
use support::{A, start, start_as};

assert_impl_all!(Table<u64, u64, &'static A>: Send, Sync);
assert_not_impl_any!(dshash_core::ExclusiveGuard<'static, u64, u64, &'static A>: Send, Sync);
assert_not_impl_any!(dshash_core::SharedGuard<'static, u64, u64, &'static A>: Send, Sync);
assert_not_impl_any!(dshash_core::Session<'static, u64, u64, &'static A>: Send, Sync);
assert_not_impl_any!(dshash_core::Scan<'static, u64, u64, &'static A>: Send, Sync);

fn small() -> Params {
    Params { partitions: 16, ..Params::default() }
}

#[test]
fn two_processes_share_a_table_and_leave_nothing() {
    let machine = HeapMachine::new();
    machine.fill_new(0xaa);
    let (first, second) = (start(&machine), start(&machine));
    let (area, heap) = first.create();
    let used = area.stats().unwrap().used;
    let table = Table::<u64, [u64; 7], _>::create(area, heap, &small()).unwrap();
    let (other_area, other_heap) = second.attach(area.handle().unwrap());
    // SAFETY: the table outlives its user.
    let other =
        unsafe { Table::<u64, [u64; 7], _>::attach(other_area, table.handle(), &small()) }.unwrap();
    let (here, there) = (table.bind(heap).unwrap(), other.bind(other_heap).unwrap());
    for key in 0..20_000u64 {
        let session = if key % 2 == 0 { here } else { there };
        session.insert(&key, [key; 7]).unwrap();
    }
    for key in 0..20_000u64 {
        let session = if key % 2 == 0 { there } else { here };
        assert_eq!(session.get(&key).unwrap(), Some([key; 7]));
    }
    assert_eq!(here.check().unwrap().stats.entries, 20_000);
    for key in 0..20_000u64 {
        let session = if key % 3 == 0 { there } else { here };
        assert!(session.delete(&key).unwrap());
    }
    here.check().unwrap();
    assert!(matches!(table.bind(other_heap), Err(Error::ForeignHeap)));
    other.detach();
    // SAFETY: the other process is done with it.
    unsafe { table.destroy(heap) }.unwrap();
    assert_eq!(area.stats().unwrap().used, used);
}

#[test]
fn values_with_atomics_change_under_shared_guards() {
    let machine = HeapMachine::new();
    let process = start(&machine);
    let (area, heap) = process.create();
    let table = Table::<u32, AtomicU64, _>::create(area, heap, &small()).unwrap();
    let session = table.bind(heap).unwrap();
    session.find_or_insert(&1, || AtomicU64::new(5)).unwrap().0.release();
    session.find(&1).unwrap().unwrap().fetch_add(2, Ordering::Relaxed);
    assert_eq!(session.find(&1).unwrap().unwrap().load(Ordering::Relaxed), 7);
}

#[test]
fn a_killed_inserter_leaves_a_table_that_works() {
    let machine = HeapMachine::new();
    let first = start(&machine);
    let (area, heap) = first.create();
    let table = Table::<u64, u64, _>::create(area, heap, &small()).unwrap();
    let session = table.bind(heap).unwrap();
    for round in 0..8u64 {
        let victim = start(&machine);
        let (its_area, its_heap) = victim.attach(area.handle().unwrap());
        // SAFETY: the table outlives its user.
        let its = unsafe { Table::<u64, u64, _>::attach(its_area, table.handle(), &small()) };
        let its = its.unwrap();
        let its_session = its.bind(its_heap).unwrap();
        for key in round * 1000..(round + 1) * 1000 {
            its_session.insert(&key, key).unwrap();
        }
        let guard = its_session.find_exclusive(&(round * 1000)).unwrap().unwrap();
        victim.kill();
        drop(guard);
        let refused = session.get(&(round * 1000)).unwrap_err();
        assert!(refused.is_poisoned() && !refused.is_full(), "{refused:?}");
        let guard = session.find_poisoned(&(round * 1000)).unwrap();
        let refused = session.get(&(round * 1000)).unwrap_err();
        assert!(refused.is_would_deadlock() && !refused.is_timeout(), "{refused:?}");
        drop(guard);
        assert!(session.repair(&(round * 1000), |v| *v += 0).unwrap());
    }
    assert_eq!(session.check().unwrap().stats.entries, 8000);
}

#[test]
fn a_table_that_is_gone_is_not_attached() {
    let machine = HeapMachine::new();
    let process = start(&machine);
    let (area, heap) = process.create();
    let table = Table::<u64, u64, _>::create(area, heap, &small()).unwrap();
    let handle = table.handle();
    // SAFETY: nobody uses it.
    unsafe { table.destroy(heap) }.unwrap();
    // SAFETY: refused, which is what is tested.
    let again = unsafe { Table::<u64, u64, _>::attach(area, handle, &small()) };
    assert!(matches!(again.err(), Some(Error::Destroyed | Error::NotATable)));
    let nowhere = dshash_core::TableHandle(dsa_core::DsaPointer::INVALID);
    // SAFETY: refused.
    let again = unsafe { Table::<u64, u64, _>::attach(area, nowhere, &small()) };
    assert!(matches!(again.err(), Some(Error::NotATable)));
}

#[test]
fn a_table_with_locks_of_another_kind_is_refused() {
    let machine = HeapMachine::new();
    let process = start(&machine);
    let (area, heap) = process.create();
    let table = Table::<u64, u64, _>::create(area, heap, &small()).unwrap();
    let kind = area.resolve(table.handle().0.add(56)).unwrap().cast::<u64>();
    // SAFETY: a word of the header.
    assert_eq!(unsafe { kind.read() }, RwLock::IDENTITY);
    // SAFETY: nobody looks at it meanwhile.
    unsafe { kind.write(u64::from_le_bytes(*b"ticket\0\x01")) };
    // SAFETY: refused, which is what is tested.
    let refused = unsafe { Table::<u64, u64, _>::attach(area, table.handle(), &small()) };
    let refused = refused.err().unwrap();
    assert!(matches!(refused, Error::Mismatch(Parameter::LockKind, _, _)));
    let text = refused.to_string();
    assert!(text.contains("`ticket`") && text.contains("`rwlock`"), "{text}");
}

#[test]
fn a_sweep_does_not_touch_what_a_tables_locks_have_become() {
    let machine = HeapMachine::new();
    let (process, victim) = (start(&machine), start(&machine));
    let (area, heap) = process.create();
    let table = Table::<u64, u64, _>::create(area, heap, &small()).unwrap();
    let (pointer, bytes) = (table.handle().0, 16 * 1024);
    let (their_area, their_heap) = victim.attach(area.handle().unwrap());
    let lock = pointer.add(2176);
    let address = their_area.lock_address(lock).unwrap();
    // Killed between letting go of a partition and clearing the record of its lock.
    // SAFETY: the lock is never acquired again by this participant, who is about to die.
    let record = unsafe { their_heap.participant().hold::<RwLock>(address, HeldMode::Shared) };
    let _index = record.unwrap().keep();
    victim.kill();
    // SAFETY: nobody uses it.
    unsafe { table.destroy(heap) }.unwrap();
    // The memory becomes an object that is filled but for four bytes, which may be anything: what a
    // lock has there to say that it is one.
    let at = area.resolve_range(pointer, bytes).unwrap().as_ptr();
    for byte in (0..bytes).filter(|byte| !(2176 + 12..2176 + 16).contains(byte)) {
        // SAFETY: the memory is free, and nobody allocates meanwhile.
        unsafe { at.wrapping_add(byte).write(0xff) };
    }
    assert!(process.ns.reap().unwrap() > 0);
    for byte in 2176 + 16..2176 + 64 {
        // SAFETY: as above.
        assert_eq!(unsafe { at.wrapping_add(byte).read() }, 0xff, "byte {byte}");
    }
}

#[test]
fn sixty_empty_tables_are_small() {
    let machine = HeapMachine::new();
    let process = start(&machine);
    let (area, heap) = process.create();
    let before = area.stats().unwrap().used;
    for _ in 0..60 {
        // The first entries of no others take more.
        Table::<u64, [u64; 10], _>::create(area, heap, &Params::default()).unwrap().detach();
    }
    let used = area.stats().unwrap().used - before;
    assert!(used < 16 << 20, "{used} bytes");
}

/// As many partitions, with locks for as many participants, as there can be.
#[test]
fn the_largest_empty_table() {
    let machine = HeapMachine::new();
    let config = NamespaceConfig {
        max_processes: 4096,
        max_participants: 65_535,
        ..NamespaceConfig::default()
    };
    let process = start_as(&machine, &config);
    let (area, heap) = process.create();
    let params = Params { partitions: 1024, type_tag: u64::MAX };
    let table = Table::<u64, u64, _>::create(area, heap, &params).unwrap();
    let session = table.bind(heap).unwrap();
    for key in 0..50_000u64 {
        assert_eq!(session.insert(&key, !key).unwrap(), None);
    }
    for key in 0..50_000u64 {
        assert_eq!(session.get(&key).unwrap(), Some(!key));
    }
    assert_eq!(session.check().unwrap().stats.entries, 50_000);
    let other = start_as(&machine, &config);
    let (their_area, their_heap) = other.attach(area.handle().unwrap());
    // SAFETY: the table outlives its user.
    let theirs =
        unsafe { Table::<u64, u64, _>::attach(their_area, table.handle(), &params) }.unwrap();
    // One that dies with a partition, which is that of some key.
    core::mem::forget(theirs.bind(their_heap).unwrap().find_exclusive(&7).unwrap().unwrap());
    other.kill();
    assert!(matches!(session.find(&7), Err(Error::Poisoned)));
    session.clear().unwrap();
    // SAFETY: nobody else uses the table.
    unsafe { table.destroy(heap) }.unwrap();
    assert_eq!(area.check(heap.participant()).unwrap().objects, 0);
}
