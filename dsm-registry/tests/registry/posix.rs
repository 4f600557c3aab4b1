//! What only POSIX systems have: forks, signals that stop a process, modes and owners of files,
//! links, files with holes (by whose blocks memory is counted), `/proc/self/maps`.

use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dsm_registry::{ErrorKind, Registry};

use crate::support::{Part, Roles, Space};

pub(crate) const ROLES: Roles = &[
    ("fork", fork),
    ("hold and stop", hold_and_stop),
    ("fork amid openings", fork_amid_openings),
    ("fork amid lookups", fork_amid_lookups),
];

/// Forks with guards alive; both sides go on with the API.
fn fork(part: &Part) {
    let registry = part.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let area = registry.area("area").unwrap();
    let segment = registry.segment::<AtomicU64>("segment", |_| Ok(())).unwrap();
    table.insert(&1, 1).unwrap();
    let shared = table.find(&1).unwrap();
    let boxed = area.allocate_box(5_u64).unwrap();
    // SAFETY: this process has one more thread, the watchdog, which only sleeps.
    let child = unsafe { libc::fork() };
    if child != 0 {
        drop(shared);
        table.insert(&2, 2).unwrap();
        drop(boxed);
        part.say(&format!("parent {child}"));
        part.hang();
    }
    // Old handles say so, and dropping them harms nobody.
    assert!(matches!(table.find(&1), Err(e) if *e.kind() == ErrorKind::Forked));
    assert!(matches!(area.allocate(1_u64), Err(e) if *e.kind() == ErrorKind::Forked));
    assert!(matches!(registry.area("new"), Err(e) if *e.kind() == ErrorKind::Forked));
    assert!(matches!(registry.hash::<u64, u64>("table"), Err(e) if *e.kind() == ErrorKind::Forked));
    assert!(matches!(registry.set_persistent(true), Err(e) if *e.kind() == ErrorKind::Forked));
    assert!(matches!(area.set_size_limit(0), Err(e) if *e.kind() == ErrorKind::Forked));
    assert!(!registry.is_persistent(), "the child has changed its parent's namespace");
    drop(shared);
    drop(boxed);
    segment.fetch_add(1, Ordering::SeqCst);
    drop((registry, table, area));
    // A registration of its own.
    let registry = part.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    part.say("child registered");
    let order = part.ask();
    assert_eq!(order, "parent is dead");
    *table.entry(&3).unwrap().or_insert(0).unwrap() += 3;
    assert_eq!(table.get(&1).unwrap(), Some(1));
    assert_eq!(table.get(&2).unwrap(), Some(2));
    let guard = table.find_mut(&3).unwrap().unwrap();
    part.say(&format!("child {}", *guard));
    part.ask();
    drop(guard);
    drop((registry, table));
    part.say("child left");
    // SAFETY: ends the process, without the parent's exit handlers.
    unsafe { libc::_exit(0) };
}

#[test]
fn both_sides_of_a_fork_go_on() {
    let space = Space::new("fork");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let mut peer = space.peer("fork");
    let (mut parent, mut child) = (false, false);
    while !(parent && child) {
        let said = peer.hear();
        parent |= said.starts_with("parent ");
        child |= said == "child registered";
    }
    let attached = || registry.list().unwrap().iter().find(|e| e.name == "table").unwrap().attached;
    assert_eq!(attached(), 3);
    peer.kill_and_collect();
    registry.reap().unwrap();
    assert_eq!(attached(), 2, "the child lives on its own");
    peer.say("parent is dead");
    peer.expect("child 3");
    // The child's lock is honoured.
    assert!(matches!(table.without_waiting().find_mut(&3), Err(e) if e.is_timeout()));
    peer.say("leave");
    peer.expect("child left");
    assert_eq!(attached(), 1);
    assert_eq!(table.get(&3).unwrap(), Some(3));
}

/// Forks children, each of which must end well in time while the parent's threads go on, and says
/// how many did not.
fn fork_many(part: &Part, child: impl Fn()) {
    let mut failed = 0;
    for round in 0..60 {
        // Any moment of what the other thread does.
        std::thread::sleep(std::time::Duration::from_micros(round * 37 % 1500));
        // SAFETY: the C library settles its own locks; the child needs no other but ours.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            // SAFETY: ends the child, should it hang.
            unsafe { libc::alarm(30) };
            child();
            // SAFETY: ends the child without the parent's exit handlers.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: our own child; the status is writable.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        failed += u32::from(status != 0);
        if failed > 0 {
            break;
        }
    }
    part.say(&format!("{failed} failed"));
}

/// One thread opens and leaves the namespace all the time, another one forks.
fn fork_amid_openings(part: &Part) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                drop(part.open());
            }
        });
        fork_many(part, || {
            let registry = part.open();
            registry.hash::<u64, u64>("of a child").unwrap().insert(&1, 1).unwrap();
        });
        over.store(true, Ordering::Relaxed);
    });
}

/// One thread looks names up that come and go, another one forks; the children use, and drop, what
/// they have inherited.
fn fork_amid_lookups(part: &Part) {
    let over = AtomicBool::new(false);
    let registry = part.open();
    std::thread::scope(|scope| {
        let names = registry.clone();
        let over = &over;
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                for name in ["one", "two", "three"] {
                    drop(names.segment::<u64>(name, |_| Ok(())).unwrap());
                }
                names.remove("two").unwrap();
            }
        });
        let registry = std::cell::Cell::new(Some(registry));
        fork_many(part, || {
            // The child's own copy of the handle.
            let inherited = registry.take().unwrap();
            assert!(matches!(inherited.area("area"), Err(e) if *e.kind() == ErrorKind::Forked));
            assert!(
                matches!(inherited.segment::<u64>("one", |_| Ok(())), Err(e) if *e.kind() == ErrorKind::Forked)
            );
            drop(inherited);
        });
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_child_that_was_forked_while_another_thread_opened_can_open() {
    let space = Space::new("fork-openings");
    let mut peer = space.peer("fork amid openings");
    peer.expect("0 failed");
    peer.finish();
}

#[test]
fn a_child_that_was_forked_while_another_thread_looked_names_up_is_told_so() {
    let space = Space::new("fork-lookups");
    let mut peer = space.peer("fork amid lookups");
    peer.expect("0 failed");
    peer.finish();
}

fn hold_and_stop(part: &Part) {
    let registry = part.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let mut guard = table.entry(&1).unwrap().or_insert(0).unwrap();
    *guard = 1;
    part.say("holding");
    part.ask();
    *guard = 2;
    drop(guard);
    part.say("released");
    part.ask();
}

#[test]
fn a_stopped_process_is_not_dead() {
    let space = Space::new("stopped");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let mut peer = space.peer("hold and stop");
    peer.expect("holding");
    let pid = peer.id() as libc::pid_t;
    // SAFETY: a signal to a child of ours.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
    std::thread::sleep(std::time::Duration::from_millis(100));
    registry.reap().unwrap();
    assert!(matches!(table.without_waiting().find_mut(&1), Err(e) if e.is_timeout()));
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGCONT) }, 0);
    peer.say("go on");
    peer.expect("released");
    assert_eq!(*table.find(&1).unwrap().unwrap(), 2);
}

#[test]
fn sixty_empty_tables_and_some_areas_fit_into_half_of_64_mib() {
    let space = Space::new("budget");
    let registry = space.open();
    for i in 0..60 {
        registry.hash::<u64, [u64; 10]>(&format!("table {i}")).unwrap();
    }
    for i in 0..4 {
        registry.area(&format!("area {i}")).unwrap();
    }
    // Blocks of 512 bytes that are backed by memory.
    let used: u64 = space
        .objects()
        .iter()
        .map(|path| std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512)
        .sum();
    assert!(used < 32 << 20, "{used} bytes");
}

#[test]
fn the_objects_of_others_are_refused() {
    let space = Space::new("owner");
    testkit::system::plant_control(&space.name, &[]);
    if std::os::unix::fs::chown(space.control(), Some(12_345), None).is_ok() {
        let text = Registry::open(&space.name).err().unwrap().to_string();
        assert!(text.contains("Options::owners") && text.contains("to user 12345"), "{text}");
    }
    std::fs::remove_file(space.control()).unwrap();
}

#[test]
fn links_and_loose_modes_are_refused() {
    let space = Space::new("mode");
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    symlink(elsewhere.path(), space.control()).unwrap();
    assert!(Registry::open(&space.name).is_err());
    let mut left = Vec::new();
    std::fs::File::open(elsewhere.path()).unwrap().read_to_end(&mut left).unwrap();
    assert!(left.is_empty(), "what the link names is left alone");
    std::fs::remove_file(space.control()).unwrap();

    let registry = space.builder().mode(0o660).open().unwrap();
    let mode = std::fs::metadata(space.control()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let peer = std::fs::metadata(space.control()).unwrap();
    assert!(peer.len() > 0);
    drop(registry);
    let registry = space.open();
    let mode = std::fs::metadata(space.control()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(registry);
    std::fs::write(space.control(), []).unwrap();
    std::fs::set_permissions(space.control(), PermissionsExt::from_mode(0o666)).unwrap();
    let text = Registry::open(&space.name).err().unwrap().to_string();
    assert!(text.contains("mode"), "{text}");
    std::fs::remove_file(space.control()).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn leaving_unmaps_everything() {
    let space = Space::new("unmaps");
    for _ in 0..3 {
        let registry = space.open();
        let table = registry.hash::<u64, u64>("table").unwrap();
        table.insert(&1, 1).unwrap();
        registry.area("area").unwrap().allocate([7u64; 1000]).unwrap();
        registry.segment::<u64>("segment", |value| value.write(1)).unwrap();
        drop((registry, table));
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let left: Vec<_> = maps.lines().filter(|line| line.contains(&space.name)).collect();
        assert!(left.is_empty(), "{left:#?}");
    }
}
