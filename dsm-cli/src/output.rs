//! Where this program writes.

use std::io::{ErrorKind, Write};

/// Writes a line to the standard output. That nobody reads on (`dsm ls | head`) is no error.
pub(crate) fn say(text: &str) {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        Err(error) => complain(&format!("cannot write to the standard output: {error}")),
    }
}

/// Columns of the terminal that the standard output is; 80 if it is none.
pub(crate) fn columns() -> usize {
    console::Term::stdout().size_checked().map_or(80, |(_, columns)| usize::from(columns))
}

/// Writes a complaint to the standard error.
#[expect(clippy::print_stderr, reason = "a program's complaint")]
pub(crate) fn complain(text: &str) {
    eprintln!("dsm: {text}");
}
