//! Programs under test, in bounded time, and processes killed by their ids.

use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use crate::BOUND;

/// Ends the watch over a process when it is dropped.
#[derive(Debug)]
pub struct Watch(#[expect(dead_code, reason = "its end is the signal")] Sender<()>);

/// Kills a process that takes longer than any should, unless the result is dropped before.
#[must_use]
pub fn watch(process: &Child) -> Watch {
    let pid = process.id();
    let (watched, ended) = channel();
    std::thread::spawn(move || {
        if ended.recv_timeout(2 * BOUND) == Err(RecvTimeoutError::Timeout) {
            kill(pid);
        }
    });
    Watch(watched)
}

/// Runs a program to its end, and takes what it says; it has no input.
///
/// # Panics
///
/// If it can't be started.
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let process = command.spawn().unwrap();
    let _watched = watch(&process);
    process.wait_with_output().unwrap()
}

/// Kills a process that may be no child of this one: `SIGKILL`, `TerminateProcess`. It may have
/// ended just now.
pub fn kill(pid: u32) {
    #[cfg(unix)]
    // SAFETY: no memory is involved; the caller means this process.
    unsafe {
        libc::kill(pid as libc::pid_t, libc::SIGKILL);
    }
    #[cfg(windows)]
    {
        use windows_sys::Win32::Foundation::CloseHandle;
        use windows_sys::Win32::System::Threading::{
            OpenProcess, PROCESS_TERMINATE, TerminateProcess,
        };
        // SAFETY: no memory is involved.
        let process = unsafe { OpenProcess(PROCESS_TERMINATE, 0, pid) };
        if !process.is_null() {
            // SAFETY: a handle of ours; the caller means this process.
            unsafe { TerminateProcess(process, 1) };
            // SAFETY: a handle of ours, used no more.
            unsafe { CloseHandle(process) };
        }
    }
}
