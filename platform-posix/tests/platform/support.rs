//! Child processes in roles, and threads with a view of the file system of their own.

use std::io::Write;
use std::time::Duration;

use dsm_core::env::ProcessProof;
use dsm_core::handle::SegmentHandle;
use dsm_core::provider::{Mapping, Root};
use platform_posix::Shm;
use testkit::process::{Part, Peer, command_under};

/// The test that plays roles.
const ENTRY: &str = "child_process";

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn handle(n: u64) -> SegmentHandle {
    SegmentHandle::from_raw(0x00c0_ffee_0000_0000 | n << 1).unwrap()
}

pub(crate) use testkit::name;

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

pub(crate) fn write_proof(proof: &ProcessProof) -> String {
    let ProcessProof { pid, start_time, pid_namespace, user } = proof;
    format!("{pid} {start_time} {pid_namespace} {user}")
}

pub(crate) fn read_proof(line: &str) -> ProcessProof {
    let parts: Vec<u64> = line.split(' ').map(|part| part.parse().unwrap()).collect();
    let [pid, start_time, pid_namespace, user] = parts[..] else { panic!("{line}") };
    ProcessProof { pid, start_time, pid_namespace, user }
}

/// The same process, seen from where its pid means nothing: only its token can prove it dead.
pub(crate) fn unseen(proof: ProcessProof) -> ProcessProof {
    ProcessProof { pid_namespace: !proof.pid_namespace, ..proof }
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

/// Whether `condition` comes true within the patience of a test.
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    (0..3000).any(|_| {
        let met = condition();
        if !met {
            std::thread::sleep(Duration::from_millis(10));
        }
        met
    })
}

/// The byte at an offset of a mapping.
pub(crate) fn at(mapping: &Mapping, offset: usize) -> *mut u8 {
    assert!(offset < mapping.len);
    // SAFETY: within the mapping.
    unsafe { mapping.base.add(offset) }.as_ptr()
}

pub(crate) fn set(mapping: &Mapping, offset: usize, value: u8) {
    let at = at(mapping, offset);
    // SAFETY: mapped for writing; only this test uses it.
    unsafe { at.write_volatile(value) };
}

pub(crate) fn get(mapping: &Mapping, offset: usize) -> u8 {
    let at = at(mapping, offset);
    // SAFETY: mapped; only this test uses it.
    unsafe { at.read_volatile() }
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
