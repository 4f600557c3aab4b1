//! Names that don't fit: other kinds, sizes and types, invalid names; listing and removal.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Part, Roles, Space};
use dsm_registry::{Error, ErrorKind, HashOptions, Kind, Registry, SegmentOptions, TypeTag};

pub(crate) const ROLES: Roles = &[("attach all", attach_all)];

fn mismatch(error: Error) -> String {
    assert!(matches!(error.kind(), ErrorKind::Mismatch(_)), "{error:?}");
    error.to_string()
}

#[test]
fn a_mismatch_names_both_sides() {
    let space = Space::new("mismatch");
    let registry = space.open();
    registry.segment::<u64>("x", |_| Ok(())).unwrap();
    registry.hash::<u64, [u64; 2]>("t").unwrap();
    registry.segment_bytes("b", 100, |_| Ok(())).unwrap();

    // Kind.
    let text = mismatch(registry.area("x").unwrap_err());
    assert!(text.contains("a segment of u64") && text.contains("an area"), "{text}");
    // Size.
    let text = mismatch(registry.segment::<[u64; 2]>("x", |_| Ok(())).unwrap_err());
    assert!(text.contains("(8 bytes") && text.contains("(16 bytes"), "{text}");
    let text = mismatch(registry.segment_bytes("b", 101, |_| Ok(())).unwrap_err());
    assert!(text.contains("100 bytes") && text.contains("101 bytes"), "{text}");
    // Type.
    let text = mismatch(registry.segment::<i64>("x", |_| Ok(())).unwrap_err());
    assert!(text.contains("of u64 (8") && text.contains("of i64 (8"), "{text}");
    // Key and value of a table.
    let text = mismatch(registry.hash::<u32, [u64; 2]>("t").unwrap_err());
    assert!(text.contains("from u64 (8") && text.contains("from u32 (4"), "{text}");
    let text = mismatch(registry.hash::<u64, u64>("t").unwrap_err());
    assert!(text.contains("to [u64; 2] (16") && text.contains("to u64 (8"), "{text}");
    // A failed call leaves everything as it was.
    assert_eq!(registry.list().unwrap().len(), 3);
    registry.segment::<u64>("x", |_| panic!("it is there")).unwrap();
}

#[test]
fn a_tag_of_ones_own_counts_instead_of_the_types_name() {
    let space = Space::new("tags");
    let registry = space.open();
    let v1 = SegmentOptions::new().tag(TypeTag::named("config", 1));
    let v2 = SegmentOptions::new().tag(TypeTag::named("config", 2));
    registry.segment_with::<u64>("x", v1, |_| Ok(())).unwrap();
    registry.segment_with::<u64>("x", v1, |_| panic!("it is there")).unwrap();
    mismatch(registry.segment_with::<u64>("x", v2, |_| Ok(())).unwrap_err());
    mismatch(registry.segment::<u64>("x", |_| Ok(())).unwrap_err());

    let tags = HashOptions::new().tags(TypeTag::named("id", 1), TypeTag::named("count", 1));
    registry.hash_with::<u64, u64>("t", tags).unwrap();
    registry.hash_with::<u64, u64>("t", tags).unwrap();
    mismatch(registry.hash::<u64, u64>("t").unwrap_err());
    mismatch(registry.hash_with::<u32, u64>("t", tags).unwrap_err());
}

#[test]
fn invalid_names_are_refused() {
    let space = Space::new("invalid");
    let registry = space.open();
    for name in ["", &"x".repeat(64), "a\0b"] {
        let error = registry.area(name).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidName { .. }), "{error:?}");
        let error = registry.remove(name).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidName { .. }), "{error:?}");
    }
    registry.area(&"x".repeat(63)).unwrap();
    for name in ["", "a/b", "..", &"x".repeat(64)] {
        let error = Registry::open(name).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::InvalidNamespaceName { .. }), "{error:?}");
    }
    let error = registry.segment_bytes("empty", 0, |_| Ok(())).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidOption { .. }), "{error:?}");
}

#[test]
fn a_handle_is_the_same_however_it_was_found() {
    let space = Space::new("same");
    let registry = space.open();
    let again = space.open();
    let a = registry.segment::<AtomicU64>("x", |x| x.write(AtomicU64::new(1))).unwrap();
    let b = again.segment::<AtomicU64>("x", |_| panic!("it is there")).unwrap();
    assert!(std::ptr::eq(&*a, &*b));
    // Handles outlive the registry, and the namespace lives as long.
    drop((registry, again, a));
    assert!(!space.objects().is_empty());
    let registry = space.open();
    let c = registry.segment::<AtomicU64>("x", |_| panic!("it is there")).unwrap();
    assert!(std::ptr::eq(&*b, &*c));
    assert_eq!(b.load(Ordering::SeqCst), 1);
}

fn attach_all(part: &Part) {
    let registry = part.open();
    let value = registry.segment::<AtomicU64>("segment", |_| Ok(())).unwrap();
    let area = registry.area("area").unwrap();
    let table = registry.hash::<u64, u64>("hash").unwrap();
    loop {
        part.say("attached");
        match &*part.ask() {
            "use" => {
                value.fetch_add(1, Ordering::SeqCst);
                area.allocate(1_u64).unwrap();
                table.insert(&1, 2).unwrap();
            }
            "look up" => {
                let known = registry.segment::<AtomicU64>("segment", |_| Ok(())).unwrap();
                assert!(!std::ptr::eq(&*known, &*value), "it was replaced");
            }
            _ => return,
        }
    }
}

#[test]
fn the_list_tells_kinds_sizes_and_who_is_attached() {
    let space = Space::new("list");
    let registry = space.open();
    assert!(registry.list().unwrap().is_empty());
    registry.segment::<AtomicU64>("segment", |_| Ok(())).unwrap();
    registry.area("area").unwrap().allocate([0_u8; 100_000]).unwrap();
    registry.hash::<u64, u64>("hash").unwrap();
    registry.segment_bytes("bytes", 12_345, |_| Ok(())).unwrap();

    let list = registry.list().unwrap();
    let found: Vec<_> = list.iter().map(|e| (&*e.name, e.kind, e.attached)).collect();
    let expected = [
        ("area", Kind::Area, 1),
        ("bytes", Kind::Bytes, 1),
        ("hash", Kind::Hash, 1),
        ("segment", Kind::Segment, 1),
    ];
    assert_eq!(found, expected);
    assert_eq!(list[1].size, 12_345);
    assert_eq!(list[3].size, 8);
    assert!(list[0].size >= list[0].used && list[0].used >= 100_000, "{:?}", list[0]);
    assert!(list[2].size >= 64 << 10 && list[2].used > 0, "{:?}", list[2]);

    let mut peer = space.peer("attach all");
    peer.expect("attached");
    let list = registry.list().unwrap();
    let attached: Vec<_> = list.iter().map(|e| e.attached).collect();
    assert_eq!(attached, [2, 1, 2, 2]);
    peer.kill_and_collect();
    registry.reap().unwrap();
    assert!(registry.list().unwrap().iter().all(|e| e.attached == 1));
}

#[test]
fn removal_is_refused_while_others_are_attached_unless_forced() {
    let space = Space::new("remove");
    let registry = space.open();
    let error = registry.remove("segment").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotFound { .. }), "{error:?}");

    let value = registry.segment::<AtomicU64>("segment", |_| Ok(())).unwrap();
    let mut peer = space.peer("attach all");
    peer.expect("attached");
    for name in ["segment", "area", "hash"] {
        let error = registry.remove(name).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InUse { processes: 1, .. }), "{error:?}");
    }
    for name in ["segment", "area", "hash"] {
        registry.remove_forced(name).unwrap();
    }
    assert!(registry.list().unwrap().is_empty());
    // The other keeps what it has, and finds something new when it asks again.
    peer.say("use");
    peer.expect("attached");
    assert_eq!(value.load(Ordering::SeqCst), 1);
    let new = registry.segment::<AtomicU64>("segment", |_| Ok(())).unwrap();
    assert_eq!(new.load(Ordering::SeqCst), 0);
    assert!(!std::ptr::eq(&*new, &*value));
    peer.say("look up");
    peer.expect("attached");
    peer.say("leave");
    peer.finish();
    registry.remove("segment").unwrap();
    assert!(registry.list().unwrap().is_empty());
}

#[test]
fn a_removed_name_gives_its_memory_back() {
    let space = Space::new("back");
    let registry = space.open();
    let before = space.objects().len();
    for _ in 0..5 {
        let area = registry.area("area").unwrap();
        area.allocate([0_u8; 1 << 16]).unwrap();
        drop(area);
        let table = registry.hash::<u64, u64>("hash").unwrap();
        table.insert(&1, 1).unwrap();
        drop(table);
        registry.segment::<u64>("segment", |_| Ok(())).unwrap();
        for name in ["area", "hash", "segment"] {
            registry.remove(name).unwrap();
        }
        assert_eq!(space.objects().len(), before, "{:?}", space.objects());
    }
}

#[test]
fn a_hundred_names_are_all_found() {
    let space = Space::new("hundred");
    let registry = space.open();
    for i in 0..100_u64 {
        registry.segment::<u64>(&format!("name {i}"), |v| v.write(i)).unwrap();
    }
    for i in 0..100_u64 {
        let value = registry.segment::<u64>(&format!("name {i}"), |_| panic!("there")).unwrap();
        assert_eq!(*value, i);
    }
    assert_eq!(registry.list().unwrap().len(), 100);
}
