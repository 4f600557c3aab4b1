//! A full `/dev/shm` is an error that names the sizes, never a bus error, and leaves nothing.

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dsm_core::error::ErrorKind;
use dsm_core::provider::{Election, ProviderError, Root, SegmentProvider};
use platform_posix::{Error, File, Shm, SysV};

use crate::support::{PATIENCE, byte, handle, set_byte, skip, unmap, with_tiny_shm};

const MIB: usize = 1 << 20;

fn expect_full<T>(result: Result<T, Error>, asked: usize) {
    let Err(error) = result else { panic!("this can't fit") };
    let failure = error.failure();
    assert_eq!(failure.kind, ErrorKind::NoSpace, "{error}");
    assert_eq!(failure.requested, asked as u64);
    assert_eq!(failure.total, 4 * MIB as u64);
    assert!(failure.available <= failure.total);
    let text = error.to_string();
    assert!(text.contains("/dev/shm has") && text.contains("--shm-size="), "{text}");
}

fn names() -> usize {
    std::fs::read_dir("/dev/shm").unwrap().count()
}

#[test]
fn a_segment_that_does_not_fit_leaves_nothing() {
    with_tiny_shm("4m", || {
        let shm = Shm::new("full").unwrap();
        for size in [5 * MIB, 4 * MIB + 1, 64 * MIB] {
            expect_full(shm.create(handle(1), size, size), size);
            assert_eq!(names(), 0);
        }
        // Nor is any memory still taken.
        let (all, id) = shm.create(handle(1), 4 * MIB, 4 * MIB).unwrap();
        expect_full(shm.create(handle(2), 4096, 4096), 4096);
        set_byte(&all, 4 * MIB - 1, 1);
        shm.destroy(handle(1), id).unwrap();
        unmap(&shm, all);
        assert_eq!(names(), 0);
    });
}

/// Backed in several pieces, of which the last does not fit.
#[test]
fn what_was_backed_of_something_too_large_is_given_back() {
    with_tiny_shm("20m", || {
        let shm = Shm::new("full").unwrap();
        let refused = |result: Result<(), Error>, asked: usize| {
            let failure = result.unwrap_err().failure();
            assert_eq!((failure.kind, failure.requested), (ErrorKind::NoSpace, asked as u64));
            assert_eq!((failure.available, failure.total), (20 << 20, 20 << 20));
        };
        let segment = shm.create(handle(1), 30 * MIB, 30 * MIB).map(drop);
        refused(segment, 30 * MIB);
        let mut election = shm.elect(PATIENCE).unwrap();
        refused(election.create(30 * MIB).map(drop), 30 * MIB);
        assert_eq!(election.size(), 0);
        // All of it can be had by others.
        let (mapping, id) = shm.create(handle(2), 20 * MIB, 20 * MIB).unwrap();
        shm.destroy(handle(2), id).unwrap();
        unmap(&shm, mapping);
        // Nor does a reservation take what it can get.
        let (mapping, id) = shm.create(handle(3), 30 * MIB, 0).unwrap();
        refused(shm.reserve(handle(3), &mapping, 0..30 * MIB), 30 * MIB);
        assert_eq!(shm.stat(handle(3)).unwrap().reserved, 0);
        shm.destroy(handle(3), id).unwrap();
        unmap(&shm, mapping);
        election.remove().unwrap();
    });
}

#[test]
fn a_reservation_that_does_not_fit_keeps_what_there_is() {
    with_tiny_shm("4m", || {
        let shm = Shm::new("full").unwrap();
        let (mapping, id) = shm.create(handle(1), 64 * MIB, 4096).unwrap();
        set_byte(&mapping, 0, 42);
        expect_full(shm.reserve(handle(1), &mapping, 0..64 * MIB), 64 * MIB);
        shm.reserve(handle(1), &mapping, MIB..3 * MIB).unwrap();
        set_byte(&mapping, 3 * MIB - 1, 43);
        expect_full(shm.reserve(handle(1), &mapping, 3 * MIB..6 * MIB), 3 * MIB);
        assert_eq!((byte(&mapping, 0), byte(&mapping, 3 * MIB - 1)), (42, 43));
        shm.destroy(handle(1), id).unwrap();
        unmap(&shm, mapping);
    });
}

/// Where the name is gone there is only the mapping to be backed through.
fn nameless_memory_is_backed_as_far_as_there_is_any() {
    let shm = Shm::new("full").unwrap();
    let (mapping, id) = shm.create(handle(1), 64 * MIB, 4096).unwrap();
    let path = format!("/dev/shm/dsm.full.{}", handle(1));
    let object = std::fs::File::open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let backed = || object.metadata().unwrap().blocks() * 512;
    set_byte(&mapping, 0, 42);

    shm.reserve(handle(1), &mapping, 0..0).unwrap();
    shm.reserve(handle(1), &mapping, MIB + 1..2 * MIB - 1).unwrap();
    assert_eq!(backed(), MIB as u64 + 4096);
    set_byte(&mapping, 2 * MIB - 1, 43);

    // Others write meanwhile: each addition is kept.
    let counters = [0, MIB].map(|at| {
        // SAFETY: within the mapping.
        let word = unsafe { mapping.base.add(at).cast::<AtomicU32>() };
        // SAFETY: backed and aligned, and mapped until the end.
        unsafe { word.as_ref() }
    });
    let before = counters.map(|counter| counter.load(Ordering::Relaxed));
    let over = AtomicBool::new(false);
    let added = std::thread::scope(|scope| {
        let adding = scope.spawn(|| {
            let mut added = 0u32;
            while !over.load(Ordering::Relaxed) {
                for counter in counters {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                added = added.wrapping_add(1);
            }
            added
        });
        while counters[1].load(Ordering::Relaxed) == before[1] {
            std::thread::yield_now();
        }
        for _ in 0..1000 {
            shm.reserve(handle(1), &mapping, 0..4096).unwrap();
            shm.reserve(handle(1), &mapping, MIB..MIB + 8192).unwrap();
        }
        over.store(true, Ordering::Relaxed);
        adding.join().unwrap()
    });
    for (counter, before) in counters.into_iter().zip(before) {
        assert_eq!(counter.load(Ordering::Relaxed), before.wrapping_add(added));
    }

    // More than there is.
    let error = shm.reserve(handle(1), &mapping, 0..64 * MIB).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert_eq!(byte(&mapping, 2 * MIB - 1), 43);

    shm.destroy(handle(1), id).unwrap();
    unmap(&shm, mapping);
}

#[test]
fn what_lost_its_name_can_be_backed_all_the_same() {
    with_tiny_shm("4m", nameless_memory_is_backed_as_far_as_there_is_any);
}

/// The same where the kernel doesn't know how to populate a mapping, as before 5.14.
#[cfg(target_arch = "x86_64")]
#[test]
fn what_lost_its_name_can_be_backed_by_an_older_kernel() {
    use crate::fault::{Fault, inject};

    with_tiny_shm("4m", || {
        let advice = Some((2, libc::MADV_POPULATE_WRITE as u32));
        let unknown = Fault { call: libc::SYS_madvise, argument: advice, errno: libc::EINVAL };
        if inject(unknown) {
            nameless_memory_is_backed_as_far_as_there_is_any();
        } else {
            skip("seccomp is not permitted here");
        }
    });
}

#[test]
fn a_control_object_that_does_not_fit_is_of_size_zero_again() {
    with_tiny_shm("4m", || {
        let shm = Shm::new("full").unwrap();
        let mut election = shm.elect(PATIENCE).unwrap();
        expect_full(election.create(16 * MIB), 16 * MIB);
        assert_eq!(election.size(), 0);
        drop(election);
        let mut election = shm.elect(PATIENCE).unwrap();
        assert_eq!(election.size(), 0);
        let mapping = election.create(MIB).unwrap();
        set_byte(&mapping, MIB - 1, 1);
        unmap(&shm, mapping);
        expect_full(election.create(16 * MIB), 16 * MIB);
        assert_eq!(election.size(), 0);
        election.remove().unwrap();
        assert_eq!(names(), 0);
    });
}

#[test]
fn files_on_a_full_file_system_are_no_different() {
    with_tiny_shm("4m", || {
        std::fs::create_dir("/dev/shm/below").unwrap();
        let file = File::new("/dev/shm/below", "full").unwrap();
        let error = file.create(handle(1), 8 * MIB, 8 * MIB).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(error.to_string(), "segment needs 8 MiB but /dev/shm/below has 4 MiB free of 4");
        assert_eq!(std::fs::read_dir("/dev/shm/below").unwrap().count(), 0);
    });
}

/// In a System V name space of its own, with these limits; skipped where that isn't permitted.
fn with_limits(limits: &[(&str, u64)], work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: concerns this thread alone.
            let apart = unsafe { libc::unshare(libc::CLONE_NEWIPC) } == 0;
            let set = |(name, value): &(&str, u64)| {
                std::fs::write(format!("/proc/sys/kernel/{name}"), value.to_string()).is_ok()
            };
            if apart && limits.iter().all(set) {
                work();
            } else {
                skip("limits of System V segments can't be set here");
            }
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The system says "no space" where there are too many, and "invalid" where one is too large.
#[test]
fn limits_of_system_v_are_named() {
    let directory = tempfile::tempdir().unwrap();
    with_limits(&[("shmmni", 1), ("shmmax", 1 << 20)], || {
        let sysv = SysV::new(directory.path(), "limits").unwrap();
        let error = sysv.create(handle(1), 2 << 20, 4096).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::InvalidSize, "{text}");
        assert!(text.contains("kernel.shmmax") && text.contains("2097152 bytes"), "{text}");
        assert!(error.failure().to_string().contains("kernel.shmmax"));
        let (mapping, id) = sysv.create(handle(1), 4096, 4096).unwrap();
        let error = sysv.create(handle(2), 4096, 4096).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        for text in [error.to_string(), error.failure().to_string()] {
            assert!(text.contains("kernel.shmmni"), "{text}");
        }
        sysv.destroy(handle(1), id).unwrap();
        // SAFETY: used no more.
        unsafe { sysv.detach(mapping) };
    });
}

#[test]
fn a_directory_that_is_none_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = File::new(&file, "demo").unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Foreign, "{text}");
    assert!(text.contains("file") && text.contains("that is no directory"), "{text}");
    let error = File::new(directory.path().join("missing"), "demo").unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{text}");
    assert!(text.contains("missing") && text.contains("create it"), "{text}");
}
