//! A full `/dev/shm` is an error that names the sizes, never a bus error, and leaves nothing.

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dsm_core::error::{ErrorKind, ProviderFailure, Reason};
use dsm_core::handle::ObjectId;
use dsm_core::provider::{Election, ProviderError, Root, SegmentProvider};
use platform_posix::{Error, File, Memfd, Shm, SysV};
use testkit::process::Part;

use crate::support::{
    PATIENCE, byte, handle, name, set_byte, skip, spawn, told, unmap, with_tiny_shm,
};

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
        let text = error.to_string();
        let sizes = "needs 8 MiB but /dev/shm/below has 4 MiB free of 4 MiB";
        assert!(text.contains(sizes) && text.contains("/dev/shm/below/dsm.full."), "{text}");
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

/// What has no reason is told apart by nobody.
#[track_caller]
fn expect<T>(result: Result<T, Error>, reason: Reason, words: &[&str]) -> ProviderFailure {
    let Err(error) = result else { panic!("{reason:?} should forbid this") };
    let failure = error.failure();
    assert_eq!(failure.reason, reason, "{error}");
    assert_eq!(failure.kind, reason.kind(), "{error}");
    for text in [error.to_string(), failure.to_string()] {
        assert!(words.iter().all(|word| text.contains(word)), "{words:?} in {text}");
    }
    failure
}

/// The system says "no space" where there are too many, and "invalid" where one is too large.
#[test]
fn limits_of_system_v_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let open = || SysV::new(directory.path(), "limits").unwrap();
    with_limits(&[("shmmni", 1), ("shmmax", 1 << 20)], || {
        let sysv = open();
        let size = 2 << 20;
        let words = ["`kernel.shmmax`", "2097152 bytes", "1048576 bytes", "raise"];
        let failure = expect(sysv.create(handle(1), size, 4096), Reason::ShmMax, &words);
        assert_eq!((failure.requested, failure.total), (size as u64, 1 << 20));
        let (mapping, id) = sysv.create(handle(1), 4096, 4096).unwrap();
        let second = sysv.create(handle(2), 4096, 4096);
        expect(second, Reason::ShmMni, &["`kernel.shmmni`", "ipcs -m", "raise"]);
        sysv.destroy(handle(1), id).unwrap();
        // SAFETY: used no more.
        unsafe { sysv.detach(mapping) };
    });
    with_limits(&[("shmall", 4)], || {
        let sysv = open();
        let (mapping, id) = sysv.create(handle(1), 3 * 4096, 4096).unwrap();
        let second = sysv.create(handle(2), 2 * 4096, 4096);
        expect(second, Reason::ShmAll, &["`kernel.shmall`", "raise"]);
        sysv.destroy(handle(1), id).unwrap();
        // SAFETY: used no more.
        unsafe { sysv.detach(mapping) };
    });
}

/// A file system of few files says "no space", too; one that is mounted read-only, "permission".
#[test]
fn what_forbids_a_file_is_named() {
    with_tiny_shm("4m,nr_inodes=4", || {
        let shm = Shm::new("few").unwrap();
        let made: Vec<_> = (1..8).map(|n| shm.create(handle(n), 4096, 4096)).collect();
        assert!(made[0].is_ok());
        for refused in made.into_iter().skip(4) {
            expect(refused, Reason::ObjectLimit, &["`df -i`", "more inodes"]);
        }
    });
    with_tiny_shm("4m", || {
        let shm = Shm::new("readonly").unwrap();
        let directory = std::path::Path::new("/dev/shm/gone");
        std::fs::create_dir(directory).unwrap();
        let file = File::new(directory, "gone").unwrap();
        std::fs::remove_dir(directory).unwrap();
        let words = ["there is no such directory"];
        expect(file.create(handle(1), 4096, 4096), Reason::NoSuchDirectory, &words);
        expect(file.elect(PATIENCE), Reason::NoSuchDirectory, &words);
        let (mapping, id) = shm.create(handle(1), 4096, 4096).unwrap();
        // What is mapped for writing keeps it writable.
        unmap(&shm, mapping);
        drop(file);
        assert!(crate::support::make_read_only());
        let words = ["mounted read-only", "mount it for writing"];
        expect(shm.create(handle(2), 4096, 4096), Reason::ReadOnlyMount, &words);
        expect(shm.elect(PATIENCE), Reason::ReadOnlyMount, &words);
        expect(shm.attach(handle(1), id), Reason::ReadOnlyMount, &words);
        expect(shm.destroy(handle(1), id), Reason::ReadOnlyMount, &words);
    });
}

/// Whether no more addresses than a limit says can be had.
fn addresses_are_limited(len: usize) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let place = std::ptr::null_mut();
    // SAFETY: a new mapping at an address of the system's choice affects no other memory.
    let base = unsafe { libc::mmap(place, len, libc::PROT_NONE, flags, -1, 0) };
    // SAFETY: that mapping, which nobody else knows.
    base == libc::MAP_FAILED || unsafe { libc::munmap(base, len) } != 0
}

/// Limits of the process, which is therefore one of its own.
pub(crate) fn limited(part: &Part) {
    let (shm, memfd) = (told(part), Memfd::new(Memfd::new_control().unwrap()));
    let set = |resource, level| {
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: writable.
        assert_eq!(unsafe { libc::getrlimit(resource, &raw mut before) }, 0);
        let scarce = libc::rlimit { rlim_cur: level, ..before };
        // SAFETY: the process's own limit.
        assert_eq!(unsafe { libc::setrlimit(resource, &raw const scarce) }, 0);
        before.rlim_cur
    };
    let (made, id) = shm.create(handle(9), 4096, 4096).unwrap();

    let before = set(libc::RLIMIT_NOFILE, 3);
    let words = ["too many open files", "`ulimit -n`"];
    expect(shm.create(handle(1), 4096, 4096), Reason::DescriptorLimit, &words);
    expect(shm.attach(handle(9), id), Reason::DescriptorLimit, &words);
    expect(shm.elect(PATIENCE), Reason::DescriptorLimit, &words);
    expect(memfd.create(handle(1), 4096, 4096), Reason::DescriptorLimit, &words);
    set(libc::RLIMIT_NOFILE, before);

    let before = set(libc::RLIMIT_FSIZE, 100_000);
    let words = ["100001 bytes", "100000 bytes", "`ulimit -f`"];
    let failure = expect(shm.create(handle(1), 100_001, 1), Reason::FileSizeLimit, &words);
    assert_eq!((failure.requested, failure.total), (100_001, 100_000));
    set(libc::RLIMIT_FSIZE, before);

    // What a process with addresses of 32 bits can have, too.
    let (limit, asked) = (1 << (usize::BITS.min(35) - 3), 1 << (usize::BITS.min(35) - 2));
    let before = set(libc::RLIMIT_AS, limit);
    if !addresses_are_limited(asked) {
        // qemu's user mode agrees to limit them, and does not; nor are its mappings the kernel's.
        part.say("each limit was named");
        unmap(&shm, made);
        return shm.destroy(handle(9), id).unwrap();
    }
    let words = ["GiB", "cannot map more", "`ulimit -v`"];
    for provider in [&shm.create(handle(1), asked, 1), &memfd.create(handle(1), asked, 1)] {
        expect(provider.as_ref().map_err(Clone::clone), Reason::AddressSpaceLimit, &words);
    }
    set(libc::RLIMIT_AS, before);

    // As many mappings as there can be: neighbours that differ are not merged.
    let mut count = 0;
    loop {
        let protection = if count % 2 == 0 { libc::PROT_NONE } else { libc::PROT_READ };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the system's choice affects no other memory.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            break;
        }
        count += 1;
    }
    if count < 1 << 21 {
        let words = ["cannot map more", "`sysctl vm.max_map_count`"];
        expect(shm.create(handle(1), 4096, 1), Reason::MappingLimit, &words);
    }
    part.say("each limit was named");
    unmap(&shm, made);
    shm.destroy(handle(9), id).unwrap();
}

#[test]
fn limits_of_a_process_are_named() {
    let namespace = name("limited");
    let mut peer = spawn("limited", &namespace);
    peer.expect("each limit was named");
    peer.finish();
}

/// What a file system could not hold if it were empty is not begun: others would find it full.
#[test]
fn what_can_never_fit_takes_no_memory_first() {
    with_tiny_shm("256m", || {
        let file = File::new("/dev/shm", "huge").unwrap();
        let free = || {
            let mut space = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
            // SAFETY: a C string, and writable.
            assert_eq!(unsafe { libc::statvfs(c"/dev/shm".as_ptr(), space.as_mut_ptr()) }, 0);
            // SAFETY: filled by the call.
            unsafe { space.assume_init() }.f_bavail
        };
        let mut election = file.elect(PATIENCE).unwrap();
        let (before, over) = (free(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let least = scope.spawn(|| {
                let mut least = before;
                while !over.load(Ordering::Relaxed) {
                    least = least.min(free());
                }
                least
            });
            let sizes = [Some(257 * MIB), 1_usize.checked_shl(42), 1_usize.checked_shl(55)];
            for size in sizes.into_iter().flatten() {
                assert_eq!(election.create(size).unwrap_err().kind(), ErrorKind::NoSpace);
                assert!(file.create(handle(1), size, size).is_err());
            }
            over.store(true, Ordering::Relaxed);
            assert_eq!(least.join().unwrap(), before);
        });
        election.remove().unwrap();
    });
}

#[test]
fn what_was_not_passed_is_not_gone() {
    let memfd = Memfd::new(Memfd::new_control().unwrap());
    let words = ["not passed", "`Memfd::insert`"];
    expect(memfd.attach(handle(1), ObjectId::default()), Reason::DescriptorNotPassed, &words);
    expect(memfd.stat(handle(1)), Reason::DescriptorNotPassed, &words);
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
