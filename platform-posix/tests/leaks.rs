//! Creating, failing and destroying many times leaves no descriptor, mapping or name.
//!
//! A binary of its own with one test: what it counts belongs to the whole process.
#![cfg(target_os = "linux")]

use std::time::Duration;

use dsm_core::env::Liveness;
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::{Election, RangeOwner, Root, SegmentProvider};
use platform_posix::fork::Wiped;
use platform_posix::{File, Memfd, Posix, Shm, SysV};

const PATIENCE: Duration = Duration::from_secs(30);

fn entries(path: &str) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

fn lines(path: &str) -> usize {
    std::fs::read_to_string(path).unwrap().lines().count()
}

/// Bytes of memory and swap that the machine has, or as many as this program can say.
fn all_memory() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let lines =
        text.lines().filter(|line| line.starts_with("MemTotal:") || line.starts_with("SwapTotal:"));
    let kibibytes =
        |line: &str| line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
    usize::try_from(lines.map(kibibytes).sum::<u64>() * 1024).unwrap_or(usize::MAX)
}

fn exercise<P: SegmentProvider + Root>(provider: &P, environment: &Posix) {
    let handle = |n: u64| SegmentHandle::from_raw(0x1ea4_0000_0000 | n << 1).unwrap();
    let (mapping, id) = provider.create(handle(1), 100_000, 4096).unwrap();
    let again = provider.attach(handle(1), id).unwrap();
    provider.reserve(handle(1), &mapping, 0..100_000).unwrap();
    let wrong = ObjectId { object: id.object + 1, ..id };

    // Every way to fail.
    assert!(provider.create(handle(1), 1, 1).is_err());
    assert!(provider.create(handle(2), 0, 0).is_err());
    let bytes = |bits: u32| usize::try_from(1u64 << bits).unwrap_or(usize::MAX);
    assert!(provider.create(handle(2), bytes(62), bytes(62)).is_err());
    assert!(provider.create(handle(2), bytes(50), 1).is_err());
    assert!(provider.attach(handle(2), id).is_err());
    assert!(provider.attach(handle(1), wrong).is_err());
    assert!(provider.destroy(handle(1), wrong).is_err());
    assert!(provider.stat(handle(2)).is_err());
    assert!(provider.reserve(handle(1), &mapping, 0..100_001).is_err());
    assert!(Root::elect_existing(provider, Duration::ZERO).is_err());
    assert!(provider.peek().is_err());

    let mut election = provider.elect(PATIENCE).unwrap();
    assert!(provider.elect(Duration::ZERO).is_err());
    assert!(election.create(0).is_err());
    assert!(election.create(bytes(62)).is_err());
    let control = election.create(4096).unwrap();
    let seen = provider.peek().unwrap();
    environment.claim(0).unwrap();
    environment.claim(7).unwrap();
    assert!(environment.claim(7).is_err());
    assert!(!environment.process_is_dead(7, &environment.process_proof()));
    environment.release(0);
    environment.release(7);
    assert!(environment.process_is_dead(7, &environment.process_proof()));
    election.remove().unwrap();
    drop(election);

    provider.destroy(handle(1), id).unwrap();
    let owner = RangeOwner::of(&control);
    // SAFETY: not used any more.
    unsafe { provider.blank(again, owner) };
    // SAFETY: not used any more.
    unsafe { provider.detach(mapping) };
    // SAFETY: not used any more.
    unsafe { provider.release_blanks(owner) };
    for mapping in [control, seen] {
        // SAFETY: not used any more.
        unsafe { provider.unmap(mapping) };
    }
}

#[test]
fn many_rounds_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let namespace = format!("test-leaks-{}", std::process::id());
    let memory = all_memory();
    let rounds = |n: usize| {
        for _ in 0..n {
            let shm = Shm::new(&namespace).unwrap();
            exercise(&shm, &shm.environment());
            let file = File::new(directory.path(), &namespace).unwrap();
            exercise(&file, &file.environment());
            let memfd = Memfd::new(Memfd::new_control().unwrap());
            exercise(&memfd, &memfd.environment());
            let sysv = SysV::new(directory.path(), &namespace).unwrap();
            exercise(&sysv, &sysv.environment());
            // Refused after the segment was made: more than is left, not more than there is.
            let segment = SegmentHandle::from_raw(0x1ea4_0000_0004).unwrap();
            assert!(sysv.create(segment, memory, memory).is_err());
            drop(Wiped::<u64>::new().unwrap());
        }
    };
    // The first rounds open what stays: a page that is wiped on fork, the allocator's arenas.
    rounds(3);
    let before = (entries("/proc/self/fd"), lines("/proc/self/maps"));
    rounds(200);
    let after = (entries("/proc/self/fd"), lines("/proc/self/maps"));
    assert_eq!(before.0, after.0, "descriptors");
    assert!(after.1 <= before.1 + 5, "mappings: {} before, {} after", before.1, after.1);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "names");
    assert!(!Shm::namespaces().unwrap().iter().any(|name| name.as_str() == namespace));
    let own = std::process::id().to_string();
    let segments = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    // Column 5 is the pid of the creator.
    let ours = |line: &&str| line.split_ascii_whitespace().nth(4) == Some(&*own);
    assert_eq!(segments.lines().filter(ours).count(), 0, "System V segments");
}
