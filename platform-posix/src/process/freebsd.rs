//! Processes of FreeBSD.

use std::ffi::{CStr, c_int, c_long};
use std::mem::MaybeUninit;

use dsm_core::env::ThreadProof;
use dsm_core::handle::ObjectId;

use super::Seen;
use crate::sys::{self, Errno};

pub(super) const NAMESPACES: bool = true;

/// What the system tells of a process.
struct Process {
    /// Microseconds from boot to its start.
    start: u64,
    zombie: bool,
    jail: c_int,
}

/// A value of the kernel's of type `T`, for which any bytes must do.
///
/// # Safety
///
/// All bytes must be a valid `T`.
unsafe fn value<T>(name: &[c_int]) -> Option<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>();
    let (at, count) = (value.as_mut_ptr().cast(), name.len() as libc::c_uint);
    // SAFETY: `value` is writable for `len` bytes, `name` has `count` numbers.
    let result =
        unsafe { libc::sysctl(name.as_ptr(), count, at, &raw mut len, std::ptr::null(), 0) };
    if result != 0 || len != size_of::<T>() {
        return None;
    }
    // SAFETY: filled by the call, and valid whatever its bytes are.
    Some(unsafe { value.assume_init() })
}

fn microseconds(time: libc::timeval) -> u64 {
    (time.tv_sec as u64).wrapping_mul(1_000_000).wrapping_add(time.tv_usec as u64)
}

fn boot() -> Option<u64> {
    // SAFETY: a timeval consists of integers.
    unsafe { value::<libc::timeval>(&[libc::CTL_KERN, libc::KERN_BOOTTIME]) }.map(microseconds)
}

/// The start is told as a moment of the wall clock, as which it changes when that is set; the
/// kernel adds the time of boot to what it knows, and here it is taken off again. Once more if
/// the clock was set in between.
fn look(pid: u64) -> Option<Process> {
    let pid = c_int::try_from(pid).ok()?;
    let name = [libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PID, pid];
    for _ in 0..3 {
        let before = boot()?;
        // SAFETY: consists of integers, pointers that are not followed, and arrays of them.
        let info = unsafe { value::<libc::kinfo_proc>(&name) }?;
        if boot()? == before {
            return Some(Process {
                start: microseconds(info.ki_start).wrapping_sub(before).max(1),
                zombie: info.ki_stat == libc::SZOMB,
                jail: info.ki_jid,
            });
        }
    }
    None
}

/// How this process counts: as its jail does, whose members don't see the processes outside.
pub(super) struct View(u64);

impl View {
    pub(super) fn now() -> Self {
        let own = look(u64::from(sys::process_id()));
        Self(own.map_or(0, |process| process.jail as u64 + 1))
    }

    pub(super) fn namespace(&self) -> u64 {
        self.0
    }

    /// Whether this process would be told of any other in its jail. The administrator may hide
    /// those of other users and groups: they are "no such process" then, and live.
    pub(super) fn sees_all(&self) -> bool {
        let shown = |name: &CStr| {
            let (mut value, mut len): (c_int, usize) = (0, size_of::<c_int>());
            let at = (&raw mut value).cast();
            // SAFETY: `value` is writable for `len` bytes, `name` is a C string.
            let result =
                unsafe { libc::sysctlbyname(name.as_ptr(), at, &raw mut len, std::ptr::null(), 0) };
            result == 0 && value != 0
        };
        sys::effective_user() == 0
            || (shown(c"security.bsd.see_other_uids") && shown(c"security.bsd.see_other_gids"))
    }

    pub(super) fn look(&self, pid: u64) -> Option<Seen> {
        look(pid).map(|process| Seen { start_time: process.start, ended: process.zombie })
    }

    /// The system doesn't tell when a thread started. Its number may be given out again, in
    /// which case it is not found dead before its process.
    pub(super) fn own_thread(&self) -> ThreadProof {
        // SAFETY: no preconditions; never fails.
        let tid = unsafe { libc::pthread_getthreadid_np() };
        ThreadProof { tid: u64::try_from(tid).unwrap_or(0), start_time: 0 }
    }

    pub(super) fn thread_is_gone(&self, pid: u64, thread: &ThreadProof) -> bool {
        let (Ok(pid), Ok(tid)) = (libc::pid_t::try_from(pid), c_long::try_from(thread.tid)) else {
            return false;
        };
        if pid <= 0 || tid <= 0 || !self.sees_all() {
            return false;
        }
        // SAFETY: signal 0 is never delivered.
        let result = unsafe { libc::thr_kill2(pid, tid, 0) };
        result != 0 && Errno::last() == Errno(libc::ESRCH)
    }

    /// The system tells nobody but the superuser.
    pub(super) fn has_mapped(&self, _pid: u64, _id: ObjectId, _name: &str) -> bool {
        false
    }
}
