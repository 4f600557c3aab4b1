//! Types that shared memory can't tell apart: within a process each object is of one Rust type.
//! They are of four bytes, whose alignment is the same on all machines.

use std::any::type_name;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::{Part, Roles, Space};
use dsm_registry::{
    Error, ErrorKind, HashOptions, HashTable, Key, Plain, Registry, Segment, SegmentOptions,
    TypeTag,
};

pub(crate) const ROLES: Roles = &[("as signed", as_signed)];

/// Calls a function of a local type `S` of `$of`: each that is made in one function has one name.
macro_rules! with_local {
    ($of:ty, $call:ident($registry:expr)) => {{
        #[derive(
            zerocopy::FromBytes,
            zerocopy::IntoBytes,
            zerocopy::Immutable,
            zerocopy::KnownLayout,
            Clone,
            Copy,
        )]
        #[repr(transparent)]
        struct S($of);
        $call::<S, $of>($registry, |this| &this.0)
    }};
}

/// As [`with_local`], of what changes while it is shared.
macro_rules! with_local_atomic {
    ($call:ident($registry:expr)) => {{
        #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
        #[repr(transparent)]
        struct S(AtomicU32);
        $call::<S, AtomicU32>($registry, |this| &this.0)
    }};
}

/// What is in a `T`.
type Inner<T, R> = fn(&T) -> &R;

fn segment_of<T: Plain, R>(
    registry: &Registry,
    inner: Inner<T, R>,
) -> Result<(Segment<T>, Inner<T, R>), Error> {
    registry.segment::<T>("x", |_| Ok(())).map(|segment| (segment, inner))
}

fn values_of<T: Plain, R>(registry: &Registry, _: Inner<T, R>) -> Result<HashTable<u32, T>, Error> {
    registry.hash("values")
}

fn keys_of<T: Key, R>(registry: &Registry, _: Inner<T, R>) -> Result<HashTable<T, u32>, Error> {
    registry.hash("keys")
}

/// Says that both types are named, and that it is this process that uses the first.
fn refused(error: Error, first: &str, second: &str) {
    let text = error.to_string();
    let ErrorKind::Mismatch(mismatch) = error.into_kind() else { panic!("{text}") };
    assert!(mismatch.in_this_process, "{text}");
    assert_eq!((mismatch.there.value.as_str(), mismatch.asked.value.as_str()), (first, second));
    let there = text.find("is used in this process as").expect(&text);
    let asked = text.find("this call asks for").expect(&text);
    assert!(text[there..asked].contains(first) && text[asked..].contains(second), "{text}");
}

#[test]
fn two_local_types_of_one_name_are_not_one_segment() {
    let space = Space::new("local-segment");
    let registry = space.open();
    let name = "registry::types::two_local_types_of_one_name_are_not_one_segment::S";
    let (words, word) = with_local_atomic!(segment_of(&registry)).unwrap();
    let plain = with_local!(u32, segment_of(&registry));
    let Err(error) = plain.map(|(plain, number)| {
        // A `&u32` that doesn't change, to bytes that do.
        let (before, number) = (*number(&plain), number(&plain));
        word(&words).fetch_add(1, Ordering::Relaxed);
        assert_eq!(*number, before);
    }) else {
        panic!("one of two types is the other")
    };
    refused(error, name, name);
    // Also by way of another handle of this process.
    let other = space.open();
    refused(with_local!(u32, segment_of(&other)).map(drop).unwrap_err(), name, name);
    assert_eq!(word(&words).load(Ordering::Relaxed), 0);
}

#[test]
fn two_local_types_of_one_name_are_not_one_table() {
    let space = Space::new("local-table");
    let registry = space.open();
    let name = "registry::types::two_local_types_of_one_name_are_not_one_table::S";
    let first = with_local!(u32, values_of(&registry)).unwrap();
    refused(with_local!(i32, values_of(&registry)).unwrap_err(), name, name);
    refused(with_local_atomic!(values_of(&registry)).unwrap_err(), name, name);
    let second = with_local!(u32, keys_of(&registry)).unwrap();
    let error = with_local!(i32, keys_of(&registry)).unwrap_err().to_string();
    assert_eq!(error.matches(&format!("from {name}")).count(), 2, "{error}");
    // Where the alignment differs, shared memory knows better.
    let error = with_local!([u16; 2], keys_of(&registry)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Mismatch(m) if !m.in_this_process), "{error}");
    drop((first, second));
}

fn tag() -> SegmentOptions {
    SegmentOptions::new().tag(TypeTag::named("word", 1))
}

fn tags() -> HashOptions {
    HashOptions::new().tags(TypeTag::named("word", 1), TypeTag::named("word", 1))
}

#[test]
fn one_tag_for_two_types_does_not_make_them_one() {
    let space = Space::new("one-tag");
    let registry = space.open();
    let first = registry.segment_with::<AtomicU32>("x", tag(), |_| Ok(())).unwrap();
    let second = registry.segment_with::<u32>("x", tag(), |_| panic!("it is there"));
    refused(second.unwrap_err(), type_name::<AtomicU32>(), "u32");
    registry.segment_with::<AtomicU32>("x", tag(), |_| panic!("it is there")).unwrap();

    let table = registry.hash_with::<u32, AtomicU32>("t", tags()).unwrap();
    let other = registry.hash_with::<u32, u32>("t", tags());
    refused(other.unwrap_err(), type_name::<AtomicU32>(), "u32");
    assert!(registry.hash_with::<i32, AtomicU32>("t", tags()).is_err());
    registry.hash_with::<u32, AtomicU32>("t", tags()).unwrap();
    drop((first, table));
}

#[test]
fn a_name_that_was_removed_can_be_of_another_type() {
    let space = Space::new("another-type");
    let registry = space.open();
    let first = registry.segment_with::<AtomicU32>("x", tag(), |_| Ok(())).unwrap();
    registry.remove("x").unwrap();
    let second = registry.segment_with::<u32>("x", tag(), |at| at.write(7)).unwrap();
    first.store(5, Ordering::Relaxed);
    assert_eq!((first.load(Ordering::Relaxed), *second), (5, 7));
    refused(
        registry.segment_with::<AtomicU32>("x", tag(), |_| Ok(())).unwrap_err(),
        "u32",
        type_name::<AtomicU32>(),
    );

    let first = registry.hash_with::<u32, AtomicU32>("t", tags()).unwrap();
    registry.remove("t").unwrap();
    let second = registry.hash_with::<u32, u32>("t", tags()).unwrap();
    assert_eq!(second.insert(&1, 2).unwrap(), None);
    assert!(first.find(&1).unwrap().is_none());
}

#[test]
fn after_its_last_handle_a_name_can_be_looked_up_as_another_type() {
    let space = Space::new("last-handle");
    let open = || space.builder().persistent(true).open().unwrap();
    let registry = open();
    let segment = registry.segment_with::<u32>("x", tag(), |at| at.write(7)).unwrap();
    // A handle alone keeps what it is, without the registry that it came from.
    drop(registry);
    let registry = open();
    assert!(registry.segment_with::<i32>("x", tag(), |_| Ok(())).is_err());
    assert_eq!(*segment, 7);
    drop((registry, segment));
    let registry = open();
    assert_eq!(*registry.segment_with::<i32>("x", tag(), |_| Ok(())).unwrap(), 7);
    registry.set_persistent(false).unwrap();
}

#[test]
fn of_threads_that_ask_for_two_types_one_kind_gets_it() {
    let space = Space::new("two-types");
    let registry = space.open();
    for round in 0..testkit::rounds(30) {
        let (name, start) = (format!("x{round}"), Barrier::new(4));
        // The registry's own cache must not decide: each looks the name up in shared memory.
        let ask = |signed: bool| {
            start.wait();
            if signed {
                let got = registry.hash_with::<u32, i32>(&name, tags());
                got.map(|handle| Box::new(handle) as Box<dyn std::any::Any + Send>)
            } else {
                let got = registry.hash_with::<u32, u32>(&name, tags());
                got.map(|handle| Box::new(handle) as Box<dyn std::any::Any + Send>)
            }
        };
        // Who gets a handle keeps it until all have asked.
        let got = std::thread::scope(|scope| {
            let asking = [false, true, false, true].map(|signed| {
                let ask = &ask;
                (signed, scope.spawn(move || ask(signed)))
            });
            asking.map(|(signed, thread)| (signed, thread.join().unwrap()))
        });
        let kind = got.iter().find(|(_, got)| got.is_ok()).expect("somebody gets it").0;
        for (signed, got) in &got {
            assert_eq!(got.is_ok(), *signed == kind, "{got:?}");
        }
    }
}

/// Uses the segment and the table as other types than the parent does.
fn as_signed(part: &Part) {
    let registry = part.open();
    let segment = registry.segment_with::<i32>("x", tag(), |_| Ok(())).unwrap();
    let table = registry.hash_with::<i32, i32>("t", tags()).unwrap();
    part.say(&format!("{} {}", *segment, table.get(&-1).unwrap().unwrap()));
    part.hang();
}

#[test]
fn between_processes_tags_decide() {
    let space = Space::new("between");
    let registry = space.open();
    let _segment = registry.segment_with::<u32>("x", tag(), |at| at.write(u32::MAX)).unwrap();
    let table = registry.hash_with::<u32, u32>("t", tags()).unwrap();
    table.insert(&u32::MAX, 5).unwrap();
    let mut peer = space.peer("as signed");
    peer.expect("-1 5");
    peer.kill_and_collect();
}
