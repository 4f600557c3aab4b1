//! The programs, as they are called.

use std::process::{Command, Output};

fn ratios(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ratios")).args(arguments).output().expect("start ratios")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn ratios_names_an_unknown_work_and_measures_the_others() {
    let quick = ["--processes=1", "--samples=1", "--milliseconds=1", "--json"];
    let output = ratios(&[&quick[..], &["lock_shred", "lock_shared", "mop_*"]].concat());
    assert!(!output.status.success(), "{output:?}");
    let complaints = text(&output.stderr);
    assert!(complaints.contains("\"lock_shred\""), "{complaints}");
    assert!(complaints.contains("\"mop_*\""), "{complaints}");
    let rows = text(&output.stdout);
    assert_eq!(rows.lines().count(), 1, "{rows}");
    assert!(rows.contains("\"lock_shared\""), "{rows}");
}

#[test]
fn ratios_lists_its_works() {
    let output = ratios(&["--list"]);
    assert!(output.status.success(), "{output:?}");
    let listed: Vec<&str> = text(&output.stdout).lines().collect();
    let works: Vec<String> = benches::works::all().into_iter().map(|work| work.name).collect();
    assert_eq!(listed, works);
}
