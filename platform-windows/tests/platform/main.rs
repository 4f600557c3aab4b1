//! What Windows does beyond what the traits promise: lifetimes, abandonment, sizes, access.
#![cfg(windows)]

mod elections;
mod lifetimes;
mod processes;
mod refusals;
mod sizes;
mod support;
mod waits;

/// What child processes run; nothing to do in the parent.
#[test]
fn child_process() {
    let Some(part) = testkit::process::part() else { return };
    match part.role.as_str() {
        "elected" => elections::elected(&part),
        "keeper" => lifetimes::keeper(&part),
        "member" => lifetimes::member(&part),
        "claimant" => processes::claimant(&part),
        "reacher" => sizes::reacher(&part),
        "sleeper" => waits::sleeper(&part),
        "answerer" => waits::answerer(&part),
        other => panic!("no role {other}"),
    }
}
