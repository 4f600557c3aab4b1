//! A reaper: sweeps what the killed leave, without anybody asking for it.

use std::time::Duration;

use dsm_core::env::ProcessProof;
use dsm_core::provider::ProviderError;
use dsm_registry::system::SharedMemory;
use dsm_registry::{Connection, ErrorKind, Platform, ProviderFailure, Registry, Watch, Watched};

use crate::support::{BOUND, Part, Roles, Space};

pub(crate) const ROLES: Roles = &[("fork beside a reaper", fork_beside_a_reaper)];

/// Processes whose slots are taken, dead ones included.
fn processes(space: &Space) -> usize {
    Registry::inspect(&space.name).unwrap().processes().count()
}

/// Waits until so many process slots are taken. Looks from outside, which sweeps nothing.
fn wait_for(space: &Space, count: usize) {
    let end = std::time::Instant::now() + BOUND;
    while processes(space) != count {
        assert!(std::time::Instant::now() < end, "{} processes", processes(space));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_killed_are_swept_at_once_whenever_they_joined() {
    let space = Space::new("reaper");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    table.insert(&1, 1).unwrap();
    let mut before = space.peer("hold exclusive");
    before.expect("holding");
    let reaper = registry.spawn_reaper().unwrap();
    let mut after = space.peer("hold box");
    after.expect("holding");
    assert_eq!(processes(&space), 3);
    before.kill();
    wait_for(&space, 2);
    after.kill();
    wait_for(&space, 1);
    assert!(matches!(table.get(&1), Err(e) if e.is_poisoned()));

    // Without it, nobody looks.
    drop(reaper);
    let mut last = space.peer("hold box");
    last.expect("holding");
    last.kill_and_collect();
    assert_eq!(processes(&space), 2);
    assert!(registry.reap().unwrap() > 0);
}

#[test]
fn a_waiter_gets_what_the_killed_held_and_a_reaper_keeps_the_namespace_open() {
    let space = Space::new("reaper-wait");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    table.insert(&1, 1).unwrap();
    let reaper = registry.spawn_reaper().unwrap();
    let mut holder = space.peer("hold exclusive");
    holder.expect("holding");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| table.find_mut(&1).map(|found| found.is_some()));
        holder.kill();
        assert!(matches!(waiter.join().unwrap(), Err(e) if e.is_poisoned()));
    });
    drop((table, registry));
    wait_for(&space, 1);
    assert!(format!("{reaper:?}").contains(&space.name));
    drop(reaper);
    assert!(space.objects().is_empty());
}

/// A child neither waits for its parent's reaper nor ends it.
#[test]
fn a_fork_child_leaves_the_reaper_to_its_parent() {
    let space = Space::new("reaper-fork");
    let registry = space.open();
    let mut peer = space.peer("fork beside a reaper");
    peer.expect("forked");
    let mut victim = space.peer("hold box");
    victim.expect("holding");
    victim.kill();
    wait_for(&space, 2);
    peer.kill_and_collect();
    drop(registry);
}

fn fork_beside_a_reaper(part: &Part) {
    let registry = part.open();
    let reaper = registry.spawn_reaper().unwrap();
    // SAFETY: the child uses nothing but what must work in it, and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let status =
            i32::from(!matches!(registry.spawn_reaper(), Err(e) if *e.kind() == ErrorKind::Forked));
        drop(reaper);
        // SAFETY: ends the process.
        unsafe { libc::_exit(status) };
    }
    let mut status = -1;
    // SAFETY: a child of ours.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!((waited, status), (pid, 0));
    part.say("forked");
    part.hang();
}

/// A watch that reports everybody dead as soon as it knows them, and never again.
struct Hasty {
    inner: Box<dyn Watch>,
    reported: Vec<u64>,
}

impl Watch for Hasty {
    fn add(&mut self, key: u64, whom: &ProcessProof) -> Watched {
        let watched = self.inner.add(key, whom);
        if watched == Watched::Seen {
            self.inner.remove(key);
            self.reported.push(key);
        }
        watched
    }

    fn remove(&mut self, _: u64) {}

    fn wait(&mut self, time: Duration) -> Vec<u64> {
        if self.reported.is_empty() {
            return self.inner.wait(time);
        }
        std::mem::take(&mut self.reported)
    }

    fn interrupt(&self) -> Box<dyn Fn() + Send + Sync> {
        self.inner.interrupt()
    }
}

struct WatchedHastily(SharedMemory);

impl Platform for WatchedHastily {
    fn place(&self) -> String {
        self.0.place()
    }

    fn connect(&self, name: &str, mode: u32) -> Result<Connection, ProviderFailure> {
        let connection = self.0.connect(name, mode)?;
        Ok(connection.watched_by(|| {
            let watch = platform_posix::Watch::new().map_err(|e| e.failure())?;
            Ok(Box::new(Hasty { inner: Box::new(watch), reported: Vec::new() }))
        }))
    }

    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure> {
        self.0.namespaces()
    }
}

/// Whose death was reported before it could be swept is not forgotten.
#[test]
fn the_dead_are_asked_for_until_they_are_swept() {
    let space = Space::new("reaper-hasty");
    let platform = WatchedHastily(SharedMemory::default());
    let registry = Registry::builder(&space.name).provider(platform).open().unwrap();
    let _reaper = registry.spawn_reaper().unwrap();
    let mut victim = space.peer("hold box");
    victim.expect("holding");
    // Long enough for the report, and too early.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(processes(&space), 2);
    victim.kill();
    wait_for(&space, 1);
}
