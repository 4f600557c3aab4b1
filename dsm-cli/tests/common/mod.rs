//! Running the command, in bounded time.

use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// No test takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Kills a process that takes longer than any should, unless the result is dropped before.
pub(crate) fn watch(process: &Child) -> mpsc::Sender<()> {
    let pid = process.id().to_string();
    let (watched, ended) = mpsc::channel();
    std::thread::spawn(move || {
        if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            // It may have ended just now.
            let _ = Command::new("kill").args(["-9", &pid]).status();
        }
    });
    watched
}

/// Runs `dsm` to its end, somewhere else than where it was built.
pub(crate) fn dsm(arguments: &[&str]) -> Output {
    let elsewhere = std::env::temp_dir();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dsm"));
    command.args(arguments).current_dir(elsewhere);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let process = command.spawn().unwrap();
    let _watched = watch(&process);
    process.wait_with_output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
