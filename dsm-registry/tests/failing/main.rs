//! Every public call, while the system refuses what it asks for.
//!
//! One walk over everything: each call of the registry, and those of the cores that make system
//! calls by themselves, at each level of each limit, in a process of its own for each call and
//! limit. At each level the world is built anew, the limit is set, the call is made, the limit is
//! lifted. Then
//!
//! - no signal has ended the process, and no panic;
//! - a call that failed says which limit it met, and the sizes, where the limit is of bytes; none
//!   says that anything is damaged;
//! - it has left nothing: no object that the namespace doesn't know, no name, no descriptor, no
//!   mapping;
//! - the same call succeeds now, and so do others;
//! - when all is dropped nothing is left in the system.
//!
//! `DSM_WALK=insert cargo test -p dsm-registry --test failing` walks one call.
//!
//! What is *not* asked: that a process can get by without the memory of its own heap, whose end
//! ends a Rust program. So heaps are warmed up before addresses get scarce.
//!
//! | module | its idea |
//! |---|---|
//! | [`limits`] | what is scarce, and how scarce |
//! | [`world`] | what a call works on |
//! | [`calls`] | the calls |
#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]

use std::io::Write;
use std::os::unix::process::ExitStatusExt;

use calls::{CALLS, Call};
use limits::Limit;

mod calls;
mod limits;
mod world;

/// No test by itself: the process that walks one call along one limit.
#[test]
fn walker() {
    let Some(part) = testkit::process::part() else { return };
    let call = CALLS.iter().find(|call| call.name == part.argument(0)).expect("a call");
    let limit =
        *limits::ALL.iter().find(|limit| limit.name() == part.argument(1)).expect("a limit");
    if let Err(why) = limit.prepare() {
        return part.say(&format!("skipped: {why}"));
    }
    for (index, level) in limit.levels().into_iter().enumerate() {
        part.say(&format!("at {level}"));
        let name = format!("{}-{index}", part.argument(2));
        let said = one_level(call, limit, level, &name);
        part.say(&format!("{level}: {said}"));
    }
    part.say("done");
}

/// The call at one level; what came of it.
fn one_level(call: &Call, limit: Limit, level: u64, name: &str) -> String {
    let mut world = (call.world)(name);
    let before = world.census();
    let scarce = limit.set(level);
    let result = (call.run)(&mut world);
    drop(scarce);
    world.assert_gone_with_its_last();
    let said = match result {
        Ok(()) => "succeeded".to_owned(),
        Err(text) => {
            let missing = limit.missing_from(&text, level);
            assert!(missing.is_empty(), "{text:?} does not say {missing:?}");
            assert!(!text.contains("damaged"), "nothing is: {text:?}");
            world.assert_unchanged(&before);
            (call.run)(&mut world).unwrap_or_else(|e| panic!("without a limit: {e}"));
            text
        }
    };
    world.assert_works();
    world.end();
    said
}

/// Walks one call along one limit: what went wrong, if anything.
fn walk(call: &Call, limit: Limit) -> Result<usize, String> {
    let name = testkit::name(&format!("walk-{}-{}", call.name, limit.name()));
    let command =
        &mut testkit::process::command("walker", "walk", &[call.name, limit.name(), &name]);
    let output = testkit::program::output(command);
    let said = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = said.lines().filter_map(|line| line.split_once("@@")).collect();
    if let Some((_, why)) = lines.iter().find(|(_, line)| line.starts_with("skipped")) {
        let _ = writeln!(std::io::stderr(), "{} at {}: {why}", call.name, limit.name());
        return Ok(0);
    }
    let refused =
        lines.iter().filter(|(_, line)| line.contains(": ") && !line.ends_with("succeeded"));
    if output.status.success() && lines.last().is_some_and(|(_, line)| *line == "done") {
        return Ok(refused.count());
    }
    for left in testkit::system::objects_of(&name) {
        let _ = std::fs::remove_file(left);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let panicked: Vec<_> = errors.lines().filter(|line| !line.trim().is_empty()).take(12).collect();
    Err(format!(
        "{} with few {} {}: {:?}, signal {:?}\n{}",
        call.name,
        limit.name(),
        lines.last().map_or("", |(_, line)| line),
        output.status.code(),
        output.status.signal(),
        panicked.join("\n")
    ))
}

fn walk_along(limit: Limit) {
    let mut refused = 0;
    let mut failures = Vec::new();
    let only = std::env::var("DSM_WALK").ok();
    // A thread that gets a stack, and no second one for signals, ends the process: so the standard
    // library does it.
    let apart: &[&str] = if [Limit::Addresses, Limit::Both].contains(&limit) {
        &["reaper", "another-thread"]
    } else {
        &[]
    };
    let chosen = CALLS.iter().filter(|call| !apart.contains(&call.name));
    for call in chosen.filter(|call| only.as_ref().is_none_or(|only| only == call.name)) {
        match walk(call, limit) {
            Ok(count) => refused += count,
            Err(failure) => failures.push(failure),
        }
    }
    assert!(failures.is_empty(), "{} calls:\n{}", failures.len(), failures.join("\n\n"));
    // Otherwise the limit was none.
    let _ = writeln!(std::io::stderr(), "{}: {refused} calls were refused", limit.name());
    assert!(only.is_some() || limit.may_be_skipped() || refused > 30, "{refused} refused");
}

/// An area whose segments can't be as long as usual takes segments as long as can be, and few
/// slots.
#[test]
fn an_area_of_short_segments_takes_few_slots() {
    if let Some(part) = testkit::process::part() {
        let registry = dsm_registry::Registry::open(part.argument(0)).unwrap();
        let area = registry.area("area").unwrap();
        let _scarce = Limit::FileSize.set(4 << 20);
        for _ in 0..64 {
            area.allocate_unwritten::<[u8; 1 << 20]>().unwrap();
        }
        let seen = dsm_registry::Registry::inspect(part.argument(0)).unwrap();
        return part.say(&seen.segments().count().to_string());
    }
    let name = testkit::name("short");
    let entry = "an_area_of_short_segments_takes_few_slots";
    let mut child = testkit::process::Peer::start(entry, "short", &[&name]);
    let segments: u32 = child.hear().parse().unwrap();
    // Of 64 MiB, in segments of 4 at most, each of which has room for three objects.
    assert!((16..40).contains(&segments), "{segments} segments");
    child.finish();
}

/// A killed initialiser has most of a small `/dev/shm`: the next one gets it, without anybody's
/// asking for a sweep.
#[test]
fn the_dead_make_room() {
    const ENTRY: &str = "the_dead_make_room";
    let initialise = |name: &str, init: fn(&mut [u8]) -> Result<(), dsm_registry::BoxError>| {
        let registry = dsm_registry::Registry::open(name).unwrap();
        registry.segment_bytes("most", 10 << 20, init).map(|bytes| bytes.len())
    };
    let name = testkit::name("room");
    let Some(part) = testkit::process::part() else {
        let mut child = testkit::process::Peer::start(ENTRY, "survivor", &[&name]);
        let said = child.hear();
        if said != "as long as before" {
            let _ = writeln!(std::io::stderr(), "{said}");
            assert!(said.starts_with("skipped"), "{said}");
        }
        return child.finish();
    };
    if part.role == "victim" {
        let amid = |_: &mut [u8]| {
            testkit::process::say("initialises");
            loop {
                std::thread::park();
            }
        };
        initialise(part.argument(0), amid).unwrap();
        return;
    }
    if let Err(why) = Limit::Space.prepare() {
        return part.say(&format!("skipped: {why}"));
    }
    // It sees the same small file system.
    let mut victim = testkit::process::Peer::start(ENTRY, "victim", &[part.argument(0)]);
    victim.expect("initialises");
    let registry = dsm_registry::Registry::open(part.argument(0)).unwrap();
    let full = registry.segment_bytes("other", 10 << 20, |_| Ok(())).unwrap_err();
    assert!(full.to_string().contains("free of 16 MiB"), "{full}");
    victim.kill_and_collect();
    assert_eq!(initialise(part.argument(0), |_| Ok(())).unwrap(), 10 << 20);
    part.say("as long as before");
}

#[test]
fn descriptors_run_out() {
    walk_along(Limit::Descriptors);
}

#[test]
fn addresses_run_out() {
    walk_along(Limit::Addresses);
}

#[test]
fn addresses_run_out_beside_the_last_descriptor() {
    walk_along(Limit::Both);
}

#[test]
fn files_may_not_be_long() {
    walk_along(Limit::FileSize);
}

#[test]
fn shared_memory_is_full() {
    walk_along(Limit::Space);
}
