//! A sample of images, and a short swarm, so that `cargo test` notices when a kill leaves
//! something behind.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::process::{Command, Stdio};

/// Operations of a few hundred points at most: the rest takes an optimised build.
const QUICK: &str = "open,register,leave,reap,segment,lock,allocate-s,allocate-f,allocate-r,\
    allocate-after,allocate-into-s,allocate-into-a,take,move,free-l,free-r,free-from,adopt,heap,area-c,area-a,area-d,area-p,\
    place-a,place-r,publish-s,settle,box,registry-segment-a,registry-r,table-insert,table-delete,\
    table-replace,table-change,table-repair,table-find,table-recover,entry-f,raw-i,thread,fork-l,\
    fork-g";

fn crash(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_crash"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program was built");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn one_death() {
    let (well, text) = crash(&["images", "--op", QUICK]);
    assert!(well, "{text}");
}

/// In segments that came full of rubbish.
#[test]
fn two_deaths() {
    let (well, text) =
        crash(&["images", "--op", QUICK, "--rubbish", "--depth", "2", "--sample", "3"]);
    assert!(well, "{text}");
}

#[test]
fn three_deaths() {
    let (well, text) = crash(&["images", "--op", "lock,segment", "--depth", "3", "--sample", "4"]);
    assert!(well, "{text}");
}

#[test]
fn one_image_again() {
    let of_one =
        ["images", "--op", "segment-create-main", "--depth", "2", "--step", "3,5", "--json"];
    let (well, text) = crash(&of_one);
    assert!(well, "{text}");
    let judged: String = text.split_whitespace().collect();
    assert!(judged.contains("\"images\":[1,1,0]"), "{text}");
    assert!(judged.contains("\"judged\":[0,1,0]") && judged.contains("\"newcomers\":1,"), "{text}");
    let (known, text) = crash(&["images", "--op", "no-such-operation"]);
    assert!(!known && text.contains("--list"), "{text}");
}

/// Who judges which image, and what is found, is the same in each run.
#[test]
fn the_same_again() {
    let run = || {
        let (well, text) = crash(&["images", "--op", "lock-e,thread", "--depth", "2", "--json"]);
        assert!(well, "{text}");
        let timed = |line: &&str| line.contains("_us\"") || line.contains("\"seconds\"");
        text.lines().filter(|line| !timed(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn real_processes() {
    let (well, text) = crash(&["swarm", "--seconds", "3", "--processes", "3", "--json"]);
    assert!(well, "{text}");
    assert!(text.contains("\"kills\""), "{text}");
}

/// Where no bugs are planted there is nothing to show; it says how to get them.
#[test]
fn yardsticks_need_a_build_of_their_own() {
    let (listed, text) = crash(&["yardsticks", "--list"]);
    assert!(listed && text.lines().count() >= 15, "{text}");
    if !cfg!(dsm_planted) {
        let (well, text) = crash(&["yardsticks"]);
        assert!(!well && text.contains("--cfg dsm_planted"), "{text}");
    }
    let (known, text) = crash(&["yardsticks", "--bug", "no-such-bug"]);
    assert!(!known && text.contains("no-such-bug"), "{text}");
}
