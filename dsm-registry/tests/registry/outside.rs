//! Looks from outside, by who is in no namespace; and what outlives the last who was in one.

use dsm_registry::{ErrorKind, Registry};

use crate::support::{Part, Roles, Space};

pub(crate) const ROLES: Roles = &[("attach and die", attach_and_die)];

fn attach_and_die(part: &Part) {
    let registry = part.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let _guard = table.entry(&1).unwrap().or_insert(0).unwrap();
    part.say("holding");
    part.hang();
}

#[test]
fn a_look_from_outside_changes_nothing() {
    let space = Space::new("inspect");
    assert!(matches!(Registry::inspect(&space.name), Err(e) if e.is_not_found()));
    let registry = space.open();
    registry.hash::<u64, u64>("table").unwrap();
    let mut peer = space.peer("attach and die");
    peer.expect("holding");
    let look = Registry::inspect(&space.name).unwrap();
    let pids: Vec<_> = look.processes().map(|p| (p.proof.pid, p.dead)).collect();
    let (me, other) = (u64::from(std::process::id()), u64::from(peer.id()));
    assert!(pids.contains(&(me, false)) && pids.contains(&(other, false)), "{pids:?}");
    let names = || {
        let names = look.names().unwrap();
        names.iter().map(|n| (n.name.clone(), n.attached)).collect::<Vec<_>>()
    };
    assert_eq!(names(), [("table".to_owned(), 2)]);
    let holding =
        |dead| look.participants().any(|p| p.dead == dead && p.held.iter().flatten().count() == 1);
    assert!(holding(false));
    assert_eq!(look.segments().count(), 2);
    assert!(look.segments().all(|s| s.pinned && s.settled && s.attached == 2));
    let info = look.info().unwrap();
    assert!(!info.persistent && info.max_participants == 384);
    peer.kill_and_collect();
    for _ in 0..2 {
        let pids: Vec<_> = look.processes().map(|p| (p.proof.pid, p.dead)).collect();
        assert!(pids.contains(&(me, false)) && pids.contains(&(other, true)), "{pids:?}");
        assert!(holding(true), "the evidence is still there");
        assert_eq!(names(), [("table".to_owned(), 2)]);
    }
    assert_eq!(space.builder().reap().unwrap(), 1);
    assert_eq!(look.processes().count(), 1);
    let error = Registry::destroy(&space.name).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NamespaceInUse { processes: 1, .. }), "{error:?}");
    assert!(Registry::namespaces().unwrap().contains(&space.name));
    drop(registry);
    // What is mapped stays, but the namespace is gone.
    assert!(matches!(Registry::inspect(&space.name), Err(e) if e.is_not_found()));
}

#[test]
fn names_are_seen_from_outside_as_from_inside() {
    for main_region in [0, 32 << 20] {
        let space = Space::new("outside");
        let registry = space.builder().main_region(main_region).open().unwrap();
        for i in 0..200_u64 {
            registry.segment::<u64>(&format!("value {i:03}"), |v| v.write(i)).unwrap();
        }
        registry.area("area").unwrap().allocate([1_u8; 100_000]).unwrap();
        registry.hash::<u64, u64>("hash").unwrap();
        let look = Registry::inspect(&space.name).unwrap();
        let mut outside = look.names().unwrap();
        let mut inside = registry.list().unwrap();
        assert_eq!(outside.len(), 202);
        // Only what is used is told in other terms.
        outside.iter_mut().chain(&mut inside).for_each(|listing| listing.used = 0);
        assert_eq!(outside, inside);

        let mut peer = space.peer("hang in initialiser");
        peer.expect("inside");
        for _ in 0..2 {
            let names = look.names().unwrap();
            let busy: Vec<_> = names.iter().filter_map(|n| n.initialising).collect();
            assert_eq!(busy, [u64::from(peer.id())]);
            peer.kill();
        }
    }
}

#[test]
fn reaping_removes_what_the_death_of_all_left() {
    let space = Space::new("reap");
    let mut peer = space.peer("attach and die");
    peer.expect("holding");
    peer.kill_and_collect();
    assert!(!space.objects().is_empty());
    assert_eq!(space.builder().reap().unwrap(), 1);
    assert!(space.objects().is_empty());
    assert!(matches!(space.builder().reap(), Err(e) if e.is_not_found()));
}

#[test]
fn persistence_can_be_changed() {
    let space = Space::new("change");
    let registry = space.open();
    assert!(!registry.is_persistent());
    registry.set_persistent(true).unwrap();
    registry.segment::<u64>("x", |x| x.write(5)).unwrap();
    drop(registry);
    let registry = space.open();
    assert_eq!(*registry.segment::<u64>("x", |_| panic!("it is there")).unwrap(), 5);
    registry.set_persistent(false).unwrap();
}
