//! The untyped table and its ready-made keys.

use dshash_core::hash::Secrets;
use dshash_core::keys::{BytesKeys, KeyFunctions, MemoryKeys, StrKey, StringKeys};
use dshash_core::raw::{RawParams, RawTable};
use dshash_core::{Error, Parameter, Params, Table};
use sim::HeapMachine;

use crate::support::start;

fn params(key: usize, entry: usize) -> RawParams {
    RawParams { partitions: 4, ..RawParams::new(key, entry) }
}

#[test]
fn strings_bytes_and_memory() {
    let machine = HeapMachine::new();
    machine.fill_new(0xaa);
    let process = start(&machine);
    let (area, heap) = process.create();
    let table = RawTable::create(area, heap, StringKeys, &params(16, 24)).unwrap();
    let session = table.bind(heap).unwrap();
    let (mut guard, found) = session.find_or_insert(b"hello").unwrap();
    assert!(!found && guard.value() == [0; 8] && guard.key() == b"hello\0\0\0\0\0\0\0\0\0\0\0");
    guard.value_mut().copy_from_slice(&7u64.to_le_bytes());
    drop(guard);
    assert_eq!(session.find(b"hello\0rubbish").unwrap().unwrap().value(), 7u64.to_le_bytes());
    assert!(session.find(b"hell").unwrap().is_none());
    assert!(session.find(b"fifteen letters").unwrap().is_none());
    assert_eq!(session.find(b"sixteen letters!").err(), Some(Error::KeyTooLong(16, 15)));
    let mut scan = session.scan();
    assert_eq!(&scan.next().unwrap().unwrap().0[..6], b"hello\0");
    assert!(scan.next().unwrap().is_none());
    let mut scan = session.scan_mut();
    scan.next().unwrap().unwrap().delete().unwrap();
    drop(scan);
    assert!(table.is_empty());
    session.check().unwrap();

    let table = RawTable::create(area, heap, BytesKeys, &params(10, 12)).unwrap();
    let session = table.bind(heap).unwrap();
    for key in [&b""[..], b"\0", b"\0\0", b"12345678"] {
        let (mut guard, found) = session.find_or_insert(key).unwrap();
        assert!(!found);
        guard.value_mut()[0] = key.len() as u8;
    }
    assert_eq!(session.find(b"\0").unwrap().unwrap().value(), [1, 0]);
    assert!(session.delete(b"").unwrap() && !session.delete(b"").unwrap());
    assert_eq!(session.delete(b"123456789"), Err(Error::KeyTooLong(9, 8)));
    assert_eq!(session.check().unwrap().stats.entries, 3);

    let table = RawTable::create(area, heap, MemoryKeys, &params(4, 4)).unwrap();
    let session = table.bind(heap).unwrap();
    session.find_or_insert(b"abcd").unwrap().0.release();
    assert!(session.find(b"abcd").unwrap().is_some());
    assert_eq!(session.find(b"abc").err(), Some(Error::KeyTooLong(3, 4)));
    // SAFETY: a table of that handle; wrong functions are what is tested.
    let other = unsafe { RawTable::attach(area, table.handle(), StringKeys, &params(4, 4)) };
    let error = other.err().unwrap();
    assert!(matches!(error, Error::Mismatch(Parameter::HashIdentity, _, _)), "{error}");
}

#[test]
fn sizes_out_of_range_are_refused() {
    let machine = HeapMachine::new();
    let process = start(&machine);
    let (area, heap) = process.create();
    let make = |params| RawTable::create(area, heap, MemoryKeys, &params).err();
    let wrong = |p, got, most| Some(Error::Parameter(p, got, most));
    assert_eq!(make(params(0, 8)), wrong(Parameter::KeySize, 0, 8));
    assert_eq!(make(params(9, 8)), wrong(Parameter::KeySize, 9, 8));
    let huge = (1 << 20) - 16;
    assert_eq!(
        make(params(8, huge + 1)),
        wrong(Parameter::EntrySize, huge as u64 + 1, huge as u64)
    );
    assert_eq!(make(RawParams { align: 32, ..params(8, 8) }), wrong(Parameter::Alignment, 32, 16));
    let table = RawTable::create(area, heap, MemoryKeys, &params(8, huge)).unwrap();
    let session = table.bind(heap).unwrap();
    for key in 0..20u64 {
        session.find_or_insert(&key.to_le_bytes()).unwrap().0.value_mut()[huge - 9] = key as u8;
    }
    for key in 0..20u64 {
        let guard = session.find(&key.to_le_bytes()).unwrap().unwrap();
        assert_eq!(guard.value()[huge - 9], key as u8);
    }
    session.check().unwrap();
}

/// The worst hash there is.
struct Constant;

impl KeyFunctions for Constant {
    fn identity(&self) -> u64 {
        1
    }
    fn check(&self, _: &[u8], _: usize) -> Result<(), Error> {
        Ok(())
    }
    fn hash(&self, _: &[u8], _: &Secrets) -> u64 {
        42
    }
    fn equal(&self, key: &[u8], field: &[u8]) -> bool {
        key == field
    }
    fn copy(&self, field: &mut [u8], key: &[u8]) {
        assert_ne!(key, [0xff; 8], "a function that panics");
        field.copy_from_slice(key);
    }
}

#[test]
fn identical_hashes_work_and_cost_no_memory() {
    let machine = HeapMachine::new();
    let process = start(&machine);
    let (area, heap) = process.create();
    let table = RawTable::create(area, heap, Constant, &params(8, 16)).unwrap();
    let session = table.bind(heap).unwrap();
    for key in 0..2000u64 {
        let (mut guard, found) = session.find_or_insert(&key.to_le_bytes()).unwrap();
        assert!(!found);
        guard.value_mut().copy_from_slice(&key.to_le_bytes());
    }
    let report = session.check().unwrap();
    assert_eq!(report.stats.entries, 2000);
    assert!(report.stats.overflow > 100, "{report:?}");
    assert!(report.stats.bytes < 200 << 10, "{report:?}");
    for key in 0..2000u64 {
        let guard = session.find(&key.to_le_bytes()).unwrap().unwrap();
        assert_eq!(guard.value(), key.to_le_bytes());
    }
    for key in (0..2000u64).rev() {
        assert!(session.delete(&key.to_le_bytes()).unwrap());
    }
    session.trim().unwrap();
    let report = session.check().unwrap();
    assert_eq!((report.stats.entries, report.stats.overflow), (0, 0));
}

#[test]
fn a_user_function_that_panics_leaves_the_table_as_it_was() {
    let machine = HeapMachine::new();
    let process = start(&machine);
    let (area, heap) = process.create();
    let table = RawTable::create(area, heap, Constant, &params(8, 16)).unwrap();
    let session = table.bind(heap).unwrap();
    session.find_or_insert(&[1; 8]).unwrap().0.release();
    for _ in 0..3 {
        let result = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
            session.find_or_insert(&[0xff; 8]).map(drop)
        }));
        assert!(result.is_err());
        assert_eq!(session.check().unwrap().stats.entries, 1);
    }
    assert!(session.find(&[1; 8]).unwrap().is_some());
    assert!(session.find(&[0xff; 8]).unwrap().is_none());
}

#[test]
fn inline_strings_as_typed_keys() {
    let machine = HeapMachine::new();
    let process = start(&machine);
    let (area, heap) = process.create();
    let params = Params { partitions: 4, ..Params::default() };
    let table = Table::<StrKey<30>, u64, _>::create(area, heap, &params).unwrap();
    let session = table.bind(heap).unwrap();
    for word in ["the", "quick", "brown", "fox", "the"] {
        *session.entry(&StrKey::new(word).unwrap()).unwrap().or_insert(0).unwrap() += 1;
    }
    assert_eq!(session.get(&StrKey::new("the").unwrap()).unwrap(), Some(2));
    assert_eq!(session.get(&StrKey::new("th").unwrap()).unwrap(), None);
    let mut words = Vec::new();
    let mut scan = session.scan();
    while let Some(entry) = scan.next().unwrap() {
        words.push(entry.key().as_str().unwrap().to_owned());
    }
    words.sort();
    assert_eq!(words, ["brown", "fox", "quick", "the"]);
    assert_eq!(StrKey::<3>::new("four"), Err(Error::KeyTooLong(4, 3)));
}

/// Entries as long, and keys, as there can be.
#[test]
fn the_longest_entries() {
    const LONGEST: usize = (1 << 20) - 16;
    let machine = HeapMachine::new();
    let process = start(&machine);
    let (area, heap) = process.create();
    let params = RawParams { align: 16, partitions: 1, ..RawParams::new(70_000, LONGEST) };
    let table = RawTable::create(area, heap, BytesKeys, &params).unwrap();
    let session = table.bind(heap).unwrap();
    let key = |i: u8| vec![i; 65_535];
    for i in 0..20 {
        let mut entry = session.find_or_insert(&key(i)).unwrap().0;
        entry.value_mut()[..4].copy_from_slice(&[i; 4]);
    }
    for i in 0..20 {
        let found = session.find(&key(i)).unwrap().unwrap();
        assert_eq!(&found.value()[..4], &[i; 4]);
    }
    session.check().unwrap();
    let too_long = vec![0; 65_536];
    assert!(matches!(session.find(&too_long), Err(Error::KeyTooLong(65_536, 65_535))));
    for i in 0..20 {
        assert!(session.delete(&key(i)).unwrap());
    }
    session.check().unwrap();
    let params = RawParams::new(8, LONGEST + 1);
    assert!(matches!(
        RawTable::create(area, heap, BytesKeys, &params).err(),
        Some(Error::Parameter(..))
    ));
}
