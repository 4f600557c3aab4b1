//! Child processes in roles, and threads with a view of the file system of their own.

use std::io::Write;
use std::time::Duration;

use dsm_core::handle::SegmentHandle;
use dsm_core::provider::{Mapping, Root};
use platform_posix::Shm;
use testkit::process::{Part, Peer, command_under};

/// The test that plays roles.
pub(crate) const ENTRY: &str = "child_process";

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn handle(n: u64) -> SegmentHandle {
    SegmentHandle::from_raw(0x00c0_ffee_0000_0000 | n << 1).unwrap()
}

pub(crate) use testkit::memory::{byte, set_byte};
pub(crate) use testkit::name;
pub(crate) use testkit::proof::{eventually, read_proof, unseen, write_proof};

/// The part of a child.
pub(crate) fn told(part: &Part) -> Shm {
    Shm::new(part.argument(0)).unwrap()
}

/// A child process in a role; killed and reaped at the end.
pub(crate) fn spawn(role: &str, namespace: &str) -> Peer {
    Peer::start(ENTRY, role, &[namespace])
}

/// Under another program, such as `unshare`, named by the first word; `None` if there is none.
pub(crate) fn spawn_under(under: &[&str], role: &str, namespace: &str) -> Option<Peer> {
    Peer::spawn(&mut command_under(under, ENTRY, role, &[namespace])).ok()
}

pub(crate) fn send_signal(pid: i32, signal: i32) {
    // SAFETY: no memory is involved; the process is a child of this test.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// Makes orphans of this process's children its own, so that they can be reaped.
pub(crate) fn adopt_orphans() {
    // SAFETY: concerns this process alone.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// Kills an orphan and reaps it.
pub(crate) fn end(orphan: i32) {
    send_signal(orphan, libc::SIGKILL);
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(orphan, std::ptr::null_mut(), 0) };
}

pub(crate) fn unmap(shm: &Shm, mapping: Mapping) {
    // SAFETY: tests use a mapping no more after this.
    unsafe { shm.unmap(mapping) };
}

/// Says why a test did nothing.
pub(crate) fn skip(reason: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// Runs `work` on a thread that sees a tmpfs of `size` (as mount says it) in place of `/dev/shm`.
/// Nobody else sees it, and it goes with the thread. Skipped where mounting isn't permitted.
pub(crate) fn with_tiny_shm(size: &str, work: impl FnOnce() + Send) {
    let data = std::ffi::CString::new(format!("size={size}")).unwrap();
    let unseen = move || {
        // SAFETY: concerns this thread alone.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            return false;
        }
        let private = libc::MS_REC | libc::MS_PRIVATE;
        mount(c"none", c"/", c"", private, c"") && mount(c"tmpfs", c"/dev/shm", c"tmpfs", 0, &data)
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if unseen() {
                work();
            } else {
                let error = std::io::Error::last_os_error();
                skip(&format!("a tmpfs can't be mounted here: {error}"));
            }
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Makes what [`with_tiny_shm`] has mounted read-only.
pub(crate) fn make_read_only() -> bool {
    let flags = libc::MS_REMOUNT | libc::MS_RDONLY;
    mount(c"tmpfs", c"/dev/shm", c"tmpfs", flags, c"")
}

fn mount(
    what: &std::ffi::CStr,
    place: &std::ffi::CStr,
    kind: &std::ffi::CStr,
    flags: libc::c_ulong,
    data: &std::ffi::CStr,
) -> bool {
    // SAFETY: C strings that outlive the call.
    let result = unsafe {
        libc::mount(what.as_ptr(), place.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast())
    };
    result == 0
}
