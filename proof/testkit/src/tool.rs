//! What the programs that test something have in common: words for people, and checks that end in
//! words.

use std::fmt::Debug;
use std::io::Write;

/// Prints a line. Who does not want to read it all (`| head`) is no reason to stop.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints what is wrong, in the name of a program.
#[expect(clippy::print_stderr, reason = "a program's complaint")]
pub fn complain(program: &str, error: &str) {
    eprintln!("{program}: {error}");
}

/// Any error, as text.
pub fn text(error: impl Debug) -> String {
    format!("{error:?}")
}

/// Fails with a text unless it holds.
///
/// # Errors
///
/// The text.
pub fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
