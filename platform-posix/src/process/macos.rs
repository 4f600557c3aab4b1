//! Processes of macOS.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use dsm_core::env::ThreadProof;
use dsm_core::handle::ObjectId;

use super::Seen;
use crate::sys::Errno;

/// There are none.
pub(super) const NAMESPACES: bool = false;

/// `PROC_PIDTHREADID64INFO`: of a thread by the number that it alone ever has.
const BY_THREAD_ID: c_int = 15;

/// What `proc_pidinfo` says, a `T` of integers; the last error if it says nothing.
///
/// # Safety
///
/// `T` must be what that `flavor` fills, and valid whatever its bytes are.
unsafe fn ask<T>(pid: u64, flavor: c_int, argument: u64) -> Result<T, Errno> {
    let pid = c_int::try_from(pid).map_err(|_| Errno(libc::EINVAL))?;
    let mut info = MaybeUninit::<T>::zeroed();
    let (at, len) = (info.as_mut_ptr().cast(), size_of::<T>() as c_int);
    // SAFETY: `info` is writable for `len` bytes.
    let got = unsafe { libc::proc_pidinfo(pid, flavor, argument, at, len) };
    if got < len {
        return Err(Errno::last());
    }
    // SAFETY: filled by the call, and valid whatever its bytes are.
    Ok(unsafe { info.assume_init() })
}

/// (start in microseconds since 1970, noted when it started; whether it is a zombie).
fn look(pid: u64) -> Option<(u64, bool)> {
    // The argument asks for zombies too.
    // SAFETY: the flavour fills this structure of integers.
    let info = unsafe { ask::<libc::proc_bsdinfo>(pid, libc::PROC_PIDTBSDINFO, 1) }.ok()?;
    let start = info.pbi_start_tvsec * 1_000_000 + info.pbi_start_tvusec;
    Some((start, info.pbi_status == libc::SZOMB))
}

/// How this process counts: as everybody does.
pub(super) struct View;

impl View {
    pub(super) fn now() -> Self {
        Self
    }

    pub(super) fn namespace(&self) -> u64 {
        0
    }

    /// What may not be looked at is "not permitted".
    pub(super) fn sees_all(&self) -> bool {
        true
    }

    pub(super) fn look(&self, pid: u64) -> Option<Seen> {
        look(pid).map(|(start_time, ended)| Seen { start_time, ended })
    }

    /// Thread numbers are 64 bits and never used again, so that there is no need for a time.
    pub(super) fn own_thread(&self) -> ThreadProof {
        let mut tid = 0;
        // SAFETY: `tid` is writable; thread 0 means the caller.
        let result = unsafe { libc::pthread_threadid_np(0, &raw mut tid) };
        ThreadProof { tid: if result == 0 { tid } else { 0 }, start_time: 0 }
    }

    pub(super) fn thread_is_gone(&self, pid: u64, thread: &ThreadProof) -> bool {
        // SAFETY: the flavour fills this structure of integers and characters.
        let found = unsafe { ask::<libc::proc_threadinfo>(pid, BY_THREAD_ID, thread.tid) };
        matches!(found, Err(Errno(libc::ESRCH)))
    }

    /// Not asked here.
    pub(super) fn has_mapped(&self, _pid: u64, _id: ObjectId, _name: &str) -> bool {
        false
    }
}
