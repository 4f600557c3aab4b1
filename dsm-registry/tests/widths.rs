//! Programs whose addresses have different widths, and one namespace: who comes second is refused,
//! is told both widths, and touches nothing of the first's.
//!
//! The other program is this test, built for another machine that this one can run, and named by
//! the environment variable `DSM_OTHER_WIDTH`; without it there is nothing to try. `.ci/linux i686
//! widths` builds both and sets it.
#![cfg(target_os = "linux")]

use std::path::PathBuf;

use dsm_registry::Registry;
use testkit::process::{Part, Peer, command_of, part};

/// What the other program runs; nothing to do in the test's own process.
#[test]
fn peer() {
    let Some(part) = part() else { return };
    let name = part.argument(0);
    match part.role.as_str() {
        "holder" => hold(&part, name),
        "newcomer" => {
            let opened = Registry::open(name).map(drop);
            part.say(&opened.map_or_else(|e| e.to_string(), |()| "let in".into()));
            let seen = Registry::builder(name).inspect().map(drop);
            part.say(&seen.map_or_else(|e| e.to_string(), |()| "seen".into()));
        }
        other => panic!("no role {other}"),
    }
}

/// Counts in a table, once for each line.
fn hold(part: &Part, name: &str) {
    let registry = Registry::open(name).unwrap();
    let table = registry.hash::<u64, u64>("count").unwrap();
    loop {
        let mut count = table.entry(&1).unwrap().or_insert(0).unwrap();
        *count += 1;
        part.say(&count.to_string());
        drop(count);
        if part.hear().is_none() {
            return;
        }
    }
}

fn refused(text: &str) {
    assert!(text.contains("32-bit addresses") || text.contains("32-bit ones"), "{text}");
    assert!(text.contains("64-bit addresses") || text.contains("64-bit ones"), "{text}");
}

#[test]
fn who_comes_second_is_refused_and_told_why() {
    let Some(other) = std::env::var_os("DSM_OTHER_WIDTH").map(PathBuf::from) else { return };
    let there = |role: &str, name: &str| {
        Peer::spawn(&mut command_of(&other, "peer", role, &[name])).unwrap()
    };
    // Both ways round.
    for ours_first in [true, false] {
        let name = format!("widths-{}-{ours_first}", std::process::id());
        let here = |role: &str| Peer::start("peer", role, &[&name]);
        let (mut holder, mut newcomer) = if ours_first {
            let mut holder = here("holder");
            holder.expect("1");
            (holder, there("newcomer", &name))
        } else {
            let mut holder = there("holder", &name);
            holder.expect("1");
            (holder, here("newcomer"))
        };
        refused(&newcomer.hear());
        refused(&newcomer.hear());
        newcomer.finish();
        // The first goes on, with others of its kind.
        assert_eq!(holder.ask("again"), "2");
        let mut third = if ours_first { here("holder") } else { there("holder", &name) };
        third.expect("3");
        third.finish();
        assert_eq!(holder.ask("again"), "4");
        holder.finish();
        assert_eq!(testkit::system::objects_of(&name), Vec::<PathBuf>::new());
    }
}
