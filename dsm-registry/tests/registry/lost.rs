//! Processes that others might take for dead while they live: under a foreign `/proc`, and without
//! their token of life.

use dsm_registry::{ErrorKind, Registry};
use testkit::process::{Peer, command_under};

use crate::support::{Part, Roles, Space};

pub(crate) const ROLES: Roles = &[
    ("without proc", without_proc),
    ("look beside", look_beside),
    ("close all", close_all),
    ("swept", swept),
];

/// In a pid namespace of its own; `None` where that isn't permitted.
fn apart(space: &Space, role: &str, options: &[&str]) -> Option<Peer> {
    let mut under = vec!["unshare", "--pid", "--fork", "--kill-child"];
    under.extend(options);
    let mut peer =
        Peer::spawn(&mut command_under(&under, "peer", role, &[&space.name, ""])).ok()?;
    (peer.try_hear()? == "here").then_some(peer)
}

/// Opens the namespace under the `/proc` of another pid namespace, and is given its own afterwards.
fn without_proc(part: &Part) {
    part.say("here");
    let registry = part.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    table.insert(&1, 1).unwrap();
    let guard = table.find_mut(&1).unwrap().unwrap();
    // SAFETY: C strings; the mount namespace is this process's own.
    let mounted = unsafe {
        libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, std::ptr::null())
    };
    assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
    let mut other = Peer::start("peer", "look beside", &[&part.space, ""]);
    part.say(&other.hear());
    drop(guard);
    table.insert(&2, 2).unwrap();
    part.say(&other.ask("go on"));
    other.finish();
    part.ask();
}

/// Beside one that is alive: looks whether it is taken for dead.
fn look_beside(part: &Part) {
    let registry = part.open();
    let freed = registry.reap().unwrap();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let locked = matches!(table.without_waiting().find_mut(&1), Err(e) if e.is_timeout());
    part.say(&format!("{freed} swept, locked: {locked}"));
    part.ask();
    part.say(&format!("{:?} {:?}", table.get(&1).unwrap(), table.get(&2).unwrap()));
}

#[test]
fn who_opened_under_a_foreign_proc_keeps_namespace_and_locks() {
    let space = Space::new("foreign-proc");
    let Some(mut peer) = apart(&space, "without proc", &["--mount"]) else { return };
    peer.expect("0 swept, locked: true");
    peer.expect("Some(1) Some(2)");
    peer.say("end");
    peer.finish();
}

fn close_descriptors() {
    // SAFETY: closes what is not this program's: the library must bear it.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Does what daemons do, and goes on.
fn close_all(part: &Part) {
    let registry = part.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    table.insert(&1, 1).unwrap();
    let guard = table.find_mut(&1).unwrap().unwrap();
    close_descriptors();
    let path = format!("/dev/shm/dsm.{}.ctl", part.space);
    let own: Vec<_> = (0..12).map(|_| std::fs::File::open(&path).unwrap()).collect();
    part.say("closed");
    part.ask();
    drop(guard);
    table.insert(&2, 2).unwrap();
    registry.area("area").unwrap().allocate(7_u64).unwrap();
    drop((registry, table));
    // What has the numbers by now is the program's.
    assert!(own.iter().all(|file| file.metadata().is_ok()), "closed a stranger's descriptor");
    part.say("left");
    part.ask();
}

#[test]
fn who_closes_all_descriptors_is_not_swept_and_leaves_as_ever() {
    let space = Space::new("close-all");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let mut peer = space.peer("close all");
    peer.expect("closed");
    assert_eq!(registry.reap().unwrap(), 0);
    assert!(matches!(table.without_waiting().find_mut(&1), Err(e) if e.is_timeout()));
    // Others come, and may be given its token: they pass over its slot.
    let mut others: Vec<_> = (0..3).map(|_| space.peer("look beside")).collect();
    others.iter_mut().for_each(|other| other.expect("0 swept, locked: true"));
    drop(others);
    assert_eq!(peer.ask("go on"), "left");
    assert_eq!(table.get(&2).unwrap(), Some(2));
    assert_eq!(space.builder().inspect().unwrap().processes().count(), 1);
    peer.say("end");
    peer.finish();
}

/// Loses its token where nothing else speaks for it, with guards alive, and goes on.
fn swept(part: &Part) {
    part.say("here");
    let registry = part.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let area = registry.area("area").unwrap();
    let object = area.allocate(1_u64).unwrap();
    table.insert(&1, 1).unwrap();
    let writing = table.find_mut(&1).unwrap().unwrap();
    let other = registry.hash::<u64, u64>("other").unwrap();
    other.insert(&1, 1).unwrap();
    let reading = other.find(&1).unwrap().unwrap();
    close_descriptors();
    part.say("closed");
    part.ask();
    // SAFETY: nobody else knows the object.
    let freed = unsafe { area.free(object) };
    let outcomes = [
        freed.err(),
        area.allocate(2_u64).err(),
        table.insert(&2, 2).err(),
        table.find(&1).err(),
        table.remove(&1).err(),
        registry.area("new").err(),
        registry.remove("table").err(),
        registry.reap().err(),
        registry.list().err(),
        registry.set_persistent(true).err(),
        area.set_size_limit(0).err(),
        area.trim().err(),
        registry.segment::<u64>("segment", |_| Ok(())).err(),
    ];
    for (number, outcome) in outcomes.iter().enumerate() {
        assert!(
            matches!(outcome, Some(e) if *e.kind() == ErrorKind::DeclaredDead),
            "{number}: {outcome:?}"
        );
    }
    let text = outcomes[0].as_ref().unwrap().to_string();
    assert!(text.contains("declared dead") && text.contains("open the namespace again"), "{text}");
    drop((writing, reading));
    part.say("told");
    part.ask();
    // The way out, also beside what is left of the old handle.
    let again = part.open();
    let table = again.hash::<u64, u64>("table").unwrap();
    table.insert(&3, 3).unwrap();
    drop((registry, area, other));
    table.insert(&4, 4).unwrap();
    part.say("back");
    part.ask();
}

#[test]
fn who_was_swept_while_it_lived_is_told_and_changes_nothing() {
    let space = Space::new("swept");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let other = registry.hash::<u64, u64>("other").unwrap();
    let Some(mut peer) = apart(&space, "swept", &[]) else { return };
    peer.expect("closed");
    // The process, and its one thread that used the namespace.
    assert_eq!(registry.reap().unwrap(), 2);
    let mut poisoned = table.poisoned(&1).unwrap().unwrap();
    *poisoned = 10;
    let repaired = poisoned.repaired();
    let second = other.find_mut(&1).unwrap().unwrap();
    assert_eq!(peer.ask("go on"), "told");
    // Its guards were dropped under ours.
    assert_eq!(*repaired, 10);
    drop((repaired, second));
    assert_eq!(*table.find(&1).unwrap().unwrap(), 10);
    assert_eq!(table.get(&2).unwrap(), None);
    assert!(!registry.is_persistent());
    for table in [&table, &other] {
        let report = table.check().unwrap();
        assert_eq!(report.stats.entries, 1, "{report:?}");
    }
    registry.area("area").unwrap().check().unwrap();
    assert_eq!(peer.ask("go on"), "back");
    assert_eq!((table.get(&3).unwrap(), table.get(&4).unwrap()), (Some(3), Some(4)));
    assert_eq!(space.builder().inspect().unwrap().processes().count(), 2);
    peer.say("end");
    peer.finish();
    assert_eq!(space.builder().inspect().unwrap().processes().count(), 1);
    drop((registry, table, other));
    assert!(matches!(Registry::inspect(&space.name), Err(e) if e.is_not_found()));
}
