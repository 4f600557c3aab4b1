//! What POSIX systems do beyond what the traits promise: full file systems, signals, links, forks.
#![cfg(target_os = "linux")]

mod files;
mod forks;
mod processes;
mod refusals;
mod signals;
mod space;
mod support;

/// What child processes run; nothing to do in the parent.
#[test]
fn child_process() {
    match support::role().as_deref() {
        None => {}
        Some("claimant") => processes::claimant(),
        Some("headless") => processes::headless(),
        Some("forker") => forks::forker(),
        Some(other) => panic!("no role {other}"),
    }
}
