//! Running the command.

use std::process::{Command, Output};

/// Runs `dsm` to its end, in bounded time, somewhere else than where it was built.
pub(crate) fn dsm(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dsm"));
    command.args(arguments).current_dir(std::env::temp_dir());
    testkit::program::output(&mut command)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
