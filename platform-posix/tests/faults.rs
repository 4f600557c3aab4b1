//! System calls fail one by one: each failure is an error, and leaves no descriptor and no name.
//!
//! A thread has the kernel refuse one call to it (seccomp) and then goes on to use the provider; other
//! threads are not concerned. A binary of its own with one test, since it counts descriptors.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::time::Duration;

use dsm_core::error::ErrorKind;
use dsm_core::handle::SegmentHandle;
use dsm_core::provider::{Election, ProviderError, Root, SegmentProvider};
use platform_posix::{Error, Shm};

/// A call to be refused: its number, the argument (index and value) it is known by, the error.
#[derive(Clone, Copy, Debug)]
struct Fault {
    call: libc::c_long,
    argument: Option<(u32, u32)>,
    errno: i32,
}

fn statement(code: u32, value: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k: value }
}

/// Skips `skip` statements unless the loaded value is `value`.
fn unless_equal(value: u32, skip: u8) -> libc::sock_filter {
    let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    libc::sock_filter { code: code as u16, jt: 0, jf: skip, k: value }
}

/// Makes the calling thread's call fail from now on; false if that isn't permitted.
fn inject(fault: Fault) -> bool {
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let answer = |value| statement(libc::BPF_RET | libc::BPF_K, value);
    // In the kernel's `seccomp_data` the call's number is at 0, the arguments follow from 16 on.
    let mut program = vec![load(0)];
    let refuse = answer(libc::SECCOMP_RET_ERRNO | fault.errno as u32);
    match fault.argument {
        None => program.extend([unless_equal(fault.call as u32, 1), refuse]),
        Some((index, value)) => program.extend([
            unless_equal(fault.call as u32, 3),
            load(16 + 8 * index),
            unless_equal(value, 1),
            refuse,
        ]),
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    let list = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: concerns this thread alone.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return false;
    }
    // SAFETY: the program outlives the call, and concerns this thread alone.
    unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const list) == 0 }
}

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
