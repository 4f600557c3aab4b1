//! System calls fail one by one: each failure is an error, and leaves no descriptor and no name.
//!
//! A thread has the kernel refuse one call to it (seccomp) and then goes on to use the provider;
//! other threads are not concerned. A binary of its own with one test, since it counts descriptors.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::time::Duration;

use dsm_core::error::ErrorKind;
use dsm_core::handle::SegmentHandle;
use dsm_core::provider::{Election, ProviderError, Root, SegmentProvider};
use fault::{Fault, inject};
use platform_posix::{Error, Shm};

#[path = "platform/fault.rs"]
mod fault;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn handle() -> SegmentHandle {
    SegmentHandle::from_raw(0xfa_0170_0000).unwrap()
}

/// Runs `work` on a thread to which a call is refused; the error it ends with.
fn failing<T>(fault: Fault, work: impl FnOnce() -> Result<T, Error> + Send) -> Option<Error> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if !inject(fault) {
                return None;
            }
            match work() {
                Ok(_) => panic!("{fault:?} was not noticed"),
                Err(error) => Some(error),
            }
        });
        thread.join().unwrap()
    })
}

#[test]
fn every_failing_call_is_an_error_that_leaves_nothing() {
    let shm = Shm::new(&format!("test-faults-{}", std::process::id())).unwrap();
    let call = |call, errno| Fault { call, argument: None, errno };
    let shared = Some((3, libc::MAP_SHARED as u32));
    let map = Fault { call: libc::SYS_mmap, argument: shared, errno: libc::ENOMEM };
    let lock = Some((1, libc::F_OFD_SETLK as u32));
    let lock = Fault { call: libc::SYS_fcntl, argument: lock, errno: libc::ENOLCK };

    // What every process opens once.
    drop(shm.elect(Duration::ZERO).unwrap());
    shm.elect(Duration::ZERO).unwrap().remove().unwrap();
    let before = descriptors();
    let nothing_left = |fault: &Fault| {
        let mut left = Vec::new();
        shm.enumerate(&mut |object| left.push(*object)).unwrap();
        assert!(left.is_empty(), "{fault:?} left {left:?}");
        assert_eq!(descriptors(), before, "{fault:?}");
    };

    for (fault, kind) in [
        (call(libc::SYS_openat, libc::EMFILE), ErrorKind::TooMany),
        (call(libc::SYS_openat, libc::EACCES), ErrorKind::PermissionDenied),
        (call(libc::SYS_ftruncate, libc::EFBIG), ErrorKind::InvalidSize),
        (map, ErrorKind::NoMemory),
        (call(libc::SYS_fallocate, libc::ENOSPC), ErrorKind::NoSpace),
        (call(libc::SYS_fallocate, libc::EIO), ErrorKind::Other),
    ] {
        let Some(error) = failing(fault, || shm.create(handle(), 10_000, 5000)) else {
            let reason = b"skipped: seccomp is not permitted here\n";
            let _ = std::io::Write::write_all(&mut std::io::stderr(), reason);
            return;
        };
        assert_eq!(error.kind(), kind, "{fault:?}: {error}");
        nothing_left(&fault);
    }

    for (fault, kind) in [
        (map, ErrorKind::NoMemory),
        (call(libc::SYS_fallocate, libc::ENOSPC), ErrorKind::NoSpace),
        (lock, ErrorKind::Other),
    ] {
        let error = failing(fault, || {
            let mut election = shm.elect(Duration::from_secs(10))?;
            election.create(8192).map(drop)
        });
        assert_eq!(error.unwrap().kind(), kind, "{fault:?}");
        let mut election = shm.elect(Duration::from_secs(10)).unwrap();
        election.remove().unwrap();
        drop(election);
        nothing_left(&fault);
    }

    // A destruction that fails says so, and succeeds when it is tried again.
    let (mapping, id) = shm.create(handle(), 4096, 4096).unwrap();
    let unlink = call(libc::SYS_unlink, libc::EPERM);
    let error = failing(unlink, || shm.destroy(handle(), id));
    assert_eq!(error.unwrap().kind(), ErrorKind::PermissionDenied);
    shm.destroy(handle(), id).unwrap();
    // SAFETY: not used any more.
    unsafe { shm.unmap(mapping) };
    nothing_left(&unlink);
}
