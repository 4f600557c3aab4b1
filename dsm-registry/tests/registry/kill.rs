//! Kills of a process that holds each kind of guard, or all processes at once: others go on.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Part, Roles, Space};
use dsm_registry::Registry;

pub(crate) const ROLES: Roles = &[
    ("hold shared", hold_shared),
    ("hold exclusive", hold_exclusive),
    ("hold vacant", hold_vacant),
    ("hold scan", hold_scan),
    ("hold box", hold_box),
    ("stay", stay),
    ("churn", churn),
];

fn hold_shared(part: &Part) {
    let registry = part.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let _guard = table.find(&1).unwrap().unwrap();
    part.say("holding");
    part.hang();
}

fn hold_exclusive(part: &Part) {
    let registry = part.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let mut guard = table.find_mut(&1).unwrap().unwrap();
    *guard = 999;
    part.say("holding");
    part.hang();
}

fn hold_vacant(part: &Part) {
    let registry = part.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let _entry = table.entry(&77).unwrap();
    part.say("holding");
    part.hang();
}

fn hold_scan(part: &Part) {
    let registry = part.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let mut scan = table.scan_mut().unwrap();
    let entry = scan.next().unwrap();
    assert!(entry.is_some());
    part.say("holding");
    part.hang();
}

fn hold_box(part: &Part) {
    let registry = part.open();
    let area = registry.area("area").unwrap();
    let _boxed = area.allocate_box([7_u64; 100]).unwrap();
    part.say("holding");
    part.hang();
}

#[test]
fn others_go_on_when_the_holder_of_a_guard_is_killed() {
    let space = Space::new("guards");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let area = registry.area("area").unwrap();
    for role in ["hold shared", "hold exclusive", "hold vacant", "hold scan", "hold box"] {
        table.clear().unwrap();
        table.insert(&1, 10).unwrap();
        let mut peer = space.peer(role);
        peer.expect("holding");
        peer.kill();
        // Every key is reachable, for readers and writers.
        for key in 0..300 {
            if key != 1 {
                *table.entry(&key).unwrap().or_insert(0).unwrap() += 1;
                assert_eq!(*table.find(&key).unwrap().unwrap(), 1, "{role}");
            }
        }
        match table.find(&1) {
            Ok(guard) => assert_eq!(*guard.unwrap(), 10, "{role}"),
            Err(error) if error.is_poisoned() => {
                assert!(["hold exclusive", "hold scan"].contains(&role), "{role}");
                // The value was being changed: reported until somebody repairs it.
                assert!(matches!(table.get(&1), Err(e) if e.is_poisoned()));
                assert!(matches!(table.entry(&1).map(drop), Err(e) if e.is_poisoned()));
                let mut poisoned = table.poisoned(&1).unwrap().unwrap();
                assert!([10, 999].contains(&*poisoned), "{role}");
                *poisoned = 10;
                drop(poisoned.repaired());
                assert_eq!(*table.find(&1).unwrap().unwrap(), 10);
            }
            Err(error) => panic!("{role}: {error}"),
        }
        area.allocate([1_u64; 100]).unwrap();
        area.check().unwrap();
    }
}

fn stay(part: &Part) {
    let builder = Registry::builder(&part.space);
    let registry = builder.persistent(part.argument == "persistent").open().unwrap();
    let value = registry.segment::<AtomicU64>("value", |_| Ok(())).unwrap();
    value.fetch_add(1, Ordering::SeqCst);
    let table = registry.hash::<u64, u64>("table").unwrap();
    *table.entry(&1).unwrap().or_insert(0).unwrap() += 1;
    part.say("here");
    part.hang();
}

#[test]
fn the_next_open_cleans_what_the_death_of_all_left() {
    let space = Space::new("all");
    for _ in 0..3 {
        let mut peers = [space.peer("stay"), space.peer("stay")];
        peers.iter_mut().for_each(|p| p.expect("here"));
        peers.iter_mut().for_each(|p| p.kill_and_collect());
        assert!(!space.objects().is_empty());
        let registry = space.open();
        assert!(registry.list().unwrap().is_empty());
    }
    assert!(space.objects().is_empty());
}

#[test]
fn a_persistent_namespace_is_taken_over_after_the_death_of_all() {
    let space = Space::new("persistent");
    for round in 1..4 {
        let mut peer = space.peer_with("stay", "persistent");
        peer.expect("here");
        peer.kill_and_collect();
        let registry = space.open();
        let value = registry.segment::<AtomicU64>("value", |_| panic!("it is there")).unwrap();
        assert_eq!(value.load(Ordering::SeqCst), round);
        let table = registry.hash::<u64, u64>("table").unwrap();
        assert_eq!(*table.find(&1).unwrap().unwrap(), round);
    }
    assert!(!space.objects().is_empty());
    Registry::destroy(&space.name).unwrap();
    assert!(space.objects().is_empty());
}

/// Creates, uses and removes names as fast as it can.
fn churn(part: &Part) {
    let registry = part.open();
    part.say("churning");
    for round in 0_u64.. {
        let name = format!("name {}", round % 5);
        let _ = registry.segment::<AtomicU64>(&name, |v| v.write(AtomicU64::new(7)));
        let table = registry.hash::<u64, u64>("table").unwrap();
        if let Ok(entry) = table.entry(&(round % 10)) {
            *entry.or_insert(0).unwrap() += 1;
        }
        let _ = registry.remove(&name);
        if let Ok(area) = registry.area(&format!("area {}", round % 2)) {
            let boxed = area.allocate_box(round).unwrap();
            assert_eq!(boxed.get().unwrap(), round);
        }
        let _ = registry.remove(&format!("area {}", round % 2));
    }
}

#[test]
fn a_box_goes_with_its_killed_owner() {
    let space = Space::new("box-owner");
    let registry = space.open();
    let area = registry.area("area").unwrap();
    let mut victim = space.peer("hold box");
    victim.expect("holding");
    assert_eq!(area.stats().unwrap().objects, 1);
    victim.kill_and_collect();
    registry.reap().unwrap();
    area.trim().unwrap();
    assert_eq!(area.check().unwrap().objects, 0);
}

#[test]
fn kills_at_random_moments_leave_a_registry_that_works() {
    let space = Space::new("churn");
    let registry = space.open();
    for round in 0..testkit::rounds(40) {
        let mut peers = [space.peer("churn"), space.peer("churn")];
        peers.iter_mut().for_each(|p| p.expect("churning"));
        std::thread::sleep(std::time::Duration::from_micros(500 + round * 977 % 7000));
        peers.iter_mut().for_each(|p| p.kill_and_collect());
        for i in 0..5 {
            let name = format!("name {i}");
            let value =
                registry.segment::<AtomicU64>(&name, |v| v.write(AtomicU64::new(7))).unwrap();
            assert_eq!(value.load(Ordering::SeqCst), 7, "never half-initialised");
            drop(value);
            registry.remove(&name).unwrap();
        }
        let table = registry.hash::<u64, u64>("table").unwrap();
        for key in 0..10 {
            match table.entry(&key) {
                Ok(entry) => *entry.or_insert(0).unwrap() += 1,
                Err(error) if error.is_poisoned() => {
                    drop(table.poisoned(&key).unwrap().unwrap().repaired())
                }
                Err(error) => panic!("{error}"),
            }
        }
        for i in 0..2 {
            let name = format!("area {i}");
            registry.area(&name).unwrap().allocate(1_u64).unwrap();
            registry.remove(&name).unwrap();
        }
    }
    registry.remove("table").unwrap();
    registry.reap().unwrap();
    assert!(registry.list().unwrap().is_empty());
    // Control object and the registry's own area: nothing leaked by the killed.
    assert_eq!(space.objects().len(), 2, "{:?}", space.objects());
}
