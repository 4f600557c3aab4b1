//! Calls that succeed and calls that are refused leave no handle, no view and no file behind. Alone
//! in its binary, since handles are counted for the whole process.
#![cfg(windows)]

use std::time::Duration;

use dsm_core::env::{Liveness, Wait};
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::{Election, Mapping, Root, SegmentProvider};
use dsm_core::sync::AtomicU32;
use platform_windows::{Backing, Options, Owners, Shm};
use windows_sys::Win32::System::Memory::{MEM_MAPPED, MEMORY_BASIC_INFORMATION, VirtualQuery};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessHandleCount};

const PATIENCE: Duration = Duration::from_secs(30);

fn handle(n: u64) -> SegmentHandle {
    SegmentHandle::from_raw(0x1eaf_0000 | n).unwrap()
}

fn handles() -> u32 {
    let mut count = 0;
    // SAFETY: no preconditions; the handle of the own process needs no closing.
    let process = unsafe { GetCurrentProcess() };
    // SAFETY: the result is writable.
    assert_ne!(unsafe { GetProcessHandleCount(process, &raw mut count) }, 0);
    count
}

/// The highest of twenty fresh handles: multiples of four, and the lowest free ones, or nearly so.
/// For where handles are not counted (Wine).
fn next_handle() -> usize {
    use std::os::windows::io::AsRawHandle;

    let program = std::env::current_exe().unwrap();
    let files: Vec<_> = (0..20).map(|_| std::fs::File::open(&program).unwrap()).collect();
    files.iter().map(|file| file.as_raw_handle().addr()).max().unwrap()
}

/// Views of sections in this process.
fn views() -> usize {
    let (mut at, mut views) = (0usize, std::collections::HashSet::new());
    loop {
        let mut region = MEMORY_BASIC_INFORMATION::default();
        let len = size_of::<MEMORY_BASIC_INFORMATION>();
        let address = std::ptr::without_provenance(at);
        // SAFETY: any address may be asked about; the structure is writable for its size.
        if unsafe { VirtualQuery(address, &raw mut region, len) } == 0 || region.RegionSize == 0 {
            return views.len();
        }
        if region.Type == MEM_MAPPED {
            views.insert(region.AllocationBase.addr());
        }
        at = region.BaseAddress.addr() + region.RegionSize;
    }
}

fn unmap(shm: &Shm, mapping: Mapping) {
    // SAFETY: not used any more.
    unsafe { shm.unmap(mapping) };
}

/// One of everything.
fn work(backing: Backing) {
    let name = format!("test-windows-leaks-{}", std::process::id());
    let shm = Shm::with_options(&name, Options::new().backing(backing)).unwrap();
    let wrong = ObjectId { device: 7, object: 7 };

    let mut election = shm.elect(PATIENCE).unwrap();
    assert!(shm.elect(Duration::ZERO).is_err());
    assert!(election.create(1 << 60).is_err());
    let control = election.create(4096).unwrap();
    let again = election.map().unwrap();
    drop(election);
    let peeked = shm.peek().unwrap();

    let environment = shm.environment();
    environment.claim(0).unwrap();
    assert!(environment.claim(0).is_err());
    environment.claim(1).unwrap();
    environment.release(1);
    let proof = environment.process_proof();
    assert!(!environment.process_is_dead(0, &proof));
    assert!(environment.process_is_dead(2, &proof));
    assert!(!environment.thread_is_dead(&proof, &environment.thread_proof()));
    let word = AtomicU32::new(0);
    environment.wait(&word, 0, Duration::from_millis(1));
    environment.wake_all(&word);

    let (mapping, id) = shm.create(handle(1), 100_000, 4096).unwrap();
    shm.reserve(handle(1), &mapping, 0..100_000).unwrap();
    assert!(shm.reserve(handle(1), &mapping, 0..100_001).is_err());
    assert!(shm.create(handle(1), 1, 1).is_err());
    assert!(shm.create(handle(2), 1 << 60, 1 << 60).is_err());
    assert!(shm.attach(handle(1), wrong).is_err());
    assert!(shm.attach(handle(2), wrong).is_err());
    assert!(shm.destroy(handle(1), wrong).is_err());
    let everybody = Options::new().backing(backing).owners(Owners::Listed(vec!["S-1-1-0".into()]));
    let listing = Shm::with_options(&name, everybody).unwrap();
    let (open, open_id) = listing.create(handle(3), 1, 1).unwrap();
    assert!(shm.attach(handle(3), open_id).is_err());
    listing.destroy(handle(3), open_id).unwrap();
    unmap(&listing, open);
    shm.stat(handle(1)).unwrap();
    let _ = shm.enumerate(&mut |_| {});
    let attached = shm.attach(handle(1), id).unwrap();
    shm.destroy(handle(1), id).unwrap();
    unmap(&shm, attached);
    unmap(&shm, mapping);

    drop(environment);
    shm.elect_existing(PATIENCE).unwrap().remove().unwrap();
    assert!(shm.elect_existing(PATIENCE).is_err());
    for mapping in [control, again, peeked] {
        unmap(&shm, mapping);
    }
    if let Some(file) = shm.file(None) {
        let control = file.file_name().unwrap().to_str().unwrap();
        let prefix = control.strip_suffix("ctl").unwrap();
        let entries = std::fs::read_dir(file.parent().unwrap()).unwrap();
        let left = entries.filter(|entry| {
            entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with(prefix)
        });
        assert_eq!(left.count(), 0);
    }
}

#[test]
fn nothing_is_left_behind() {
    for backing in [Backing::Files, Backing::PageFile] {
        // The first time the system's libraries open what they keep.
        for _ in 0..3 {
            work(backing);
        }
        let (before, next) = ((handles(), views()), next_handle());
        for _ in 0..30 {
            work(backing);
        }
        assert_eq!((handles(), views()), before, "{backing:?}");
        // One a round would make it 120.
        assert!(next_handle() < next + 100, "{backing:?}: {next} became {}", next_handle());
    }
}
