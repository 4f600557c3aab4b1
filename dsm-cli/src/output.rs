//! Where this program writes.

/// Writes a line to the standard output.
#[expect(clippy::print_stdout, reason = "a program's output")]
pub(crate) fn say(text: &str) {
    println!("{}", text.trim_end());
}

/// Writes a complaint to the standard error.
#[expect(clippy::print_stderr, reason = "a program's complaint")]
pub(crate) fn complain(text: &str) {
    eprintln!("dsm: {text}");
}
