//! Who a process or a thread is: its id and the time when it started, and whether that one is still
//! there.
//!
//! Times are in units of 100 ns since 1601. Together with the id they name a process for ever, on
//! one machine: its number is [`ProcessProof::pid_namespace`], since a container sees nothing of
//! the processes of others.
//!
//! # Traps
//!
//! - A process that ended can be opened as long as somebody has a handle to it: it is dead if its
//!   handle is signalled, and that is so only after its last thread has run its last instruction.
//! - "Access denied" proves that there is such a process; only "invalid parameter" says that there
//!   is none.
//! - Ids are used again quickly, and those of processes are found under up to three numbers each.

use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::time::Duration;

use dsm_core::env::{ProcessProof, ThreadProof};
use windows_sys::Win32::Foundation::{ERROR_INVALID_PARAMETER, FILETIME, HANDLE};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetCurrentThread, GetCurrentThreadId, GetProcessIdOfThread, GetProcessTimes,
    GetThreadTimes, OpenProcess, OpenThread, PROCESS_QUERY_LIMITED_INFORMATION,
    PROCESS_SYNCHRONIZE, THREAD_QUERY_LIMITED_INFORMATION, THREAD_SYNCHRONIZE,
};

use crate::name::machine;
use crate::security::{own_user, relative_id};
use crate::sys::{self, Code, Waited};

/// Describes the calling process.
pub(crate) fn own_proof() -> ProcessProof {
    // SAFETY: no preconditions; the handle of the own process needs no closing.
    let own = unsafe { GetCurrentProcess() };
    ProcessProof {
        pid: u64::from(std::process::id()),
        start_time: start_of_process(own),
        pid_namespace: machine(),
        user: u64::from(own_user().map_or(0, relative_id)),
    }
}

/// Describes the calling thread.
pub(crate) fn own_thread() -> ThreadProof {
    // SAFETY: no preconditions; the handle of the own thread needs no closing.
    let own = unsafe { GetCurrentThread() };
    // SAFETY: no preconditions.
    let tid = unsafe { GetCurrentThreadId() };
    ThreadProof { tid: u64::from(tid), start_time: start_of_thread(own) }
}

/// Whether id and start time prove a process dead, seen from the process `own`.
pub(crate) fn is_dead(own: &ProcessProof, other: &ProcessProof) -> bool {
    let Ok(pid) = u32::try_from(other.pid) else { return false };
    if pid == 0 || other.pid_namespace != own.pid_namespace {
        return false;
    }
    if other.pid == own.pid {
        // The id is ours now.
        return differ(own.start_time, other.start_time);
    }
    let access = PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE;
    // SAFETY: no preconditions.
    match taken(unsafe { OpenProcess(access, 0, pid) }) {
        Ok(process) => {
            differ(start_of_process(process.as_raw_handle()), other.start_time)
                || has_ended(process.as_handle())
        }
        Err(code) => code == Code(ERROR_INVALID_PARAMETER),
    }
}

/// Whether a thread of a living process is proven gone, seen from the process `own`.
pub(crate) fn thread_is_dead(
    own: &ProcessProof,
    process: &ProcessProof,
    thread: &ThreadProof,
) -> bool {
    let Ok(tid) = u32::try_from(thread.tid) else { return false };
    if tid == 0 || process.pid == 0 || process.pid_namespace != own.pid_namespace {
        return false;
    }
    let access = THREAD_QUERY_LIMITED_INFORMATION | THREAD_SYNCHRONIZE;
    // SAFETY: no preconditions.
    match taken(unsafe { OpenThread(access, 0, tid) }) {
        Ok(handle) => {
            // SAFETY: an open handle.
            let pid = unsafe { GetProcessIdOfThread(handle.as_raw_handle()) };
            (pid != 0 && u64::from(pid) != process.pid)
                || differ(start_of_thread(handle.as_raw_handle()), thread.start_time)
                || has_ended(handle.as_handle())
        }
        Err(code) => code == Code(ERROR_INVALID_PARAMETER),
    }
}

/// Whether two start times are known and different.
fn differ(a: u64, b: u64) -> bool {
    a != 0 && b != 0 && a != b
}

fn has_ended(handle: BorrowedHandle<'_>) -> bool {
    sys::wait(handle, Duration::ZERO) == Ok(Waited::Signalled)
}

fn taken(handle: HANDLE) -> Result<OwnedHandle, Code> {
    if handle.is_null() {
        return Err(Code::last());
    }
    // SAFETY: fresh from the system, and given to nobody else.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

const NEVER: FILETIME = FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 };

fn ticks(time: FILETIME) -> u64 {
    u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime)
}

/// 0 if it can't be known.
fn start_of_process(process: HANDLE) -> u64 {
    let [mut start, mut end, mut kernel, mut user] = [NEVER; 4];
    // SAFETY: an open handle; the results are writable.
    let known = unsafe {
        GetProcessTimes(process, &raw mut start, &raw mut end, &raw mut kernel, &raw mut user)
    };
    if known == 0 { 0 } else { ticks(start) }
}

/// 0 if it can't be known.
fn start_of_thread(thread: HANDLE) -> u64 {
    let [mut start, mut end, mut kernel, mut user] = [NEVER; 4];
    // SAFETY: an open handle; the results are writable.
    let known = unsafe {
        GetThreadTimes(thread, &raw mut start, &raw mut end, &raw mut kernel, &raw mut user)
    };
    if known == 0 { 0 } else { ticks(start) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_lives_and_a_wrong_start_time_is_death() {
        let own = own_proof();
        assert!(own.start_time != 0 && own.pid_namespace != 0 && own.user != 0);
        assert!(!is_dead(&own, &own));
        assert!(is_dead(&own, &ProcessProof { start_time: own.start_time + 1, ..own }));
        assert!(!is_dead(&own, &ProcessProof { start_time: 0, ..own }));
        assert!(!is_dead(&own, &ProcessProof { pid: 0, ..own }));
        assert!(!is_dead(&own, &ProcessProof { pid: u64::MAX, ..own }));
    }

    #[test]
    fn the_own_thread_lives_and_a_wrong_start_time_is_death() {
        let own = own_proof();
        let thread = own_thread();
        assert!(thread.tid != 0 && thread.start_time != 0);
        let dead = |thread| thread_is_dead(&own, &own, &thread);
        assert!(!dead(thread));
        assert!(dead(ThreadProof { start_time: thread.start_time + 1, ..thread }));
        assert!(!dead(ThreadProof { start_time: 0, ..thread }));
        assert!(!dead(ThreadProof { tid: 0, ..thread }));
        let elsewhere = ProcessProof { pid: own.pid + 4, ..own };
        assert!(thread_is_dead(&own, &elsewhere, &thread), "a thread of another process");
    }
}
