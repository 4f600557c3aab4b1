//! What POSIX systems do beyond what the traits promise: full file systems, signals, links, forks.
#![cfg(target_os = "linux")]

#[cfg(target_arch = "x86_64")]
mod fault;
mod files;
mod forks;
mod processes;
mod refusals;
mod signals;
mod space;
mod support;
mod tokens;
mod views;

/// What child processes run; nothing to do in the parent.
#[test]
fn child_process() {
    let Some(part) = testkit::process::part() else { return };
    match part.role.as_str() {
        "claimant" => processes::claimant(&part),
        "headless" => processes::headless(&part),
        "forker" => forks::forker(&part),
        "newcomer" => views::newcomer(&part),
        "judge" => views::judge(&part),
        "traveller" => views::traveller(&part),
        "closer" => tokens::closer(&part),
        "asker" => tokens::asker(&part),
        "phoenix" => tokens::phoenix(&part),
        "sleeper" => tokens::sleeper(&part),
        "limited" => space::limited(&part),
        "watcher" => tokens::watcher(&part),
        other => panic!("no role {other}"),
    }
}
