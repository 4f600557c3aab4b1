//! Who a process or a thread is: pid and start time, and whether that one is still there.
//!
//! Start times are in the system's units: clock ticks since boot on Linux (`/proc/<pid>/stat`,
//! field 22), microseconds since boot on FreeBSD, since 1970 on macOS. Together with the pid they
//! name a process for ever, provided both sides count alike: pids are relative to a pid namespace,
//! ticks to a time namespace and a boot. All three are mixed into [`ProcessProof::pid_namespace`].
//!
//! A process may come to count otherwise than it did: it can enter another time namespace, and be
//! given another `/proc`. So whoever asks looks first how it counts *now* (a `View`), and a proof
//! that was recorded under another view says nothing.
//!
//! # Traps (Linux)
//!
//! - `kill(pid, 0)` finds a zombie alive; `/proc` may hide the processes of other users
//!   (`hidepid`): "no such file" proves nothing, "no such process" does, and the file does if it is
//!   there.
//! - `/proc` may have been mounted for another pid namespace, where our pid means somebody else, or
//!   nobody: after `unshare --pid --fork` the second process of a namespace reads the times of the
//!   kernel's second thread under its own number. What `/proc` says of pids is heard only if it
//!   knows the calling process by its one own number (`NStgid`), and is what it seems (`statfs`);
//!   and it is opened once for each question, lest something else be mounted there in the middle of
//!   it.
//! - The command name in the stat file may contain blanks and parentheses: fields are counted
//!   from the *last* parenthesis.
//! - A process whose first thread ended looks like a zombie while its other threads run: it is dead
//!   only if no other thread is left. Such a process finds itself without namespaces, and without
//!   memory, under `/proc/self`.
//! - Pid and start time survive `exec`, which ends a process for everybody else. So they prove who
//!   it is, but not that it is still in a namespace: that is so while it has the control object
//!   mapped.
//! - qemu's user mode makes up `/proc/self/stat` (and `/proc/<own pid>/stat`), with a start time
//!   that is a tick off, but not the files of tasks: those of the first thread, whose times are the
//!   process's, are read throughout.
//!
//! # Traps (FreeBSD)
//!
//! - Who is in a jail gets "no such process" for those outside: the jail counts as pid namespace.
//!   So does everybody, for processes of other users and groups, where the administrator hides
//!   those: then it proves nothing.
//! - Start times are told as moments of the wall clock and move when it is set.

use dsm_core::env::{ProcessProof, ThreadProof};
use dsm_core::handle::ObjectId;

use crate::sys;

#[cfg_attr(target_os = "linux", path = "process/linux.rs")]
#[cfg_attr(target_os = "freebsd", path = "process/freebsd.rs")]
#[cfg_attr(target_os = "macos", path = "process/macos.rs")]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "freebsd", target_os = "macos")),
    path = "process/other.rs"
)]
mod system;

use system::View;

/// What pid and start time say of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It is dead.
    Dead,
    /// It is there; whether it still is what it was when it was described, is not said.
    There,
    /// Nothing.
    Unknown,
}

/// Describes the calling process.
pub(crate) fn own_proof() -> ProcessProof {
    let (view, pid) = (View::now(), u64::from(sys::process_id()));
    ProcessProof {
        pid,
        start_time: view.look(pid).map_or(0, |seen| seen.start_time),
        pid_namespace: view.namespace(),
        user: u64::from(sys::effective_user()),
    }
}

/// Describes the calling thread.
pub(crate) fn own_thread() -> ThreadProof {
    View::now().own_thread()
}

/// What pid and start time say of a process.
pub(crate) fn fate(other: &ProcessProof) -> Fate {
    let view = View::now();
    if other.pid == 0 || !counts_like(&view, other) {
        return Fate::Unknown;
    }
    if view.sees_all() && sys::no_such_process(other.pid) {
        return Fate::Dead;
    }
    match view.look(other.pid) {
        Some(seen) if seen.ended || differ(seen.start_time, other.start_time) => Fate::Dead,
        Some(seen) if seen.start_time != 0 && seen.start_time == other.start_time => Fate::There,
        _ => Fate::Unknown,
    }
}

/// Whether a thread of a living process is proven gone.
pub(crate) fn thread_is_dead(process: &ProcessProof, thread: &ThreadProof) -> bool {
    let view = View::now();
    thread.tid != 0
        && process.pid != 0
        && counts_like(&view, process)
        && view.thread_is_gone(process.pid, thread)
}

/// Whether the process of that pid, another one that is known to be there, can be seen to have an
/// object mapped for writing; `name` is its file's.
pub(crate) fn has_mapped(pid: u64, id: ObjectId, name: &str) -> bool {
    View::now().has_mapped(pid, id, name)
}

/// Whether pids of a described process mean the same here and now.
#[cfg(target_os = "linux")]
pub(crate) fn comparable(other: &ProcessProof) -> bool {
    counts_like(&View::now(), other)
}

fn counts_like(view: &View, other: &ProcessProof) -> bool {
    let own = view.namespace();
    own == other.pid_namespace && (own != 0 || !system::NAMESPACES)
}

/// Whether two start times are known and different.
fn differ(a: u64, b: u64) -> bool {
    a != 0 && b != 0 && a != b
}

/// What the system says of a process.
struct Seen {
    start_time: u64,
    /// Whether it is a zombie, with no other thread left.
    ended: bool,
}
