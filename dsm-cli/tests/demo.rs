//! `dsm demo` as a user runs it: real processes, real kills.

use common::{dsm, text};

mod common;

fn demo(arguments: &[&str]) -> serde_json::Value {
    let output = dsm(&[&["demo", "--json"], arguments].concat());
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A text of a few thousand words in a file of its own.
fn a_text(directory: &tempfile::TempDir) -> String {
    let path = directory.path().join("text");
    let words: Vec<String> = (0..5000u32).map(|n| format!("w{}", n * n % 701)).collect();
    std::fs::write(&path, words.join(" ")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn workers_die_and_the_count_is_exact() {
    let directory = tempfile::tempdir().unwrap();
    let file = a_text(&directory);
    let report = demo(&["--workers", "3", "--kills", "5", "--passes", "40", "--seed", "7", &file]);
    assert_eq!(report["workers"], 3);
    assert_eq!(report["killed"], 5);
    assert_eq!(report["killed_midway"], 3, "every other one is aimed");
    assert_eq!(report["recoveries"], 5);
    assert_eq!(report["words"], 40 * 5000);
    assert_eq!(report["verified"], true);
    assert_eq!(report["leaked_bytes"], 0);
    assert_eq!(report["deaths"].as_array().unwrap().len(), 5);
    // Killed between the two stores, an update is taken back by whoever meets the word first.
    assert!(report["repairs_undone"].as_u64().unwrap() >= 3, "{report}");
}

#[test]
fn the_own_documents_are_counted_if_no_file_is_given() {
    let output = dsm(&["demo", "--workers", "2", "--kills", "1", "--passes", "5"]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    for part in [
        "1 of them between the two stores",
        "each from the exact word",
        "every count equals that of a single process",
        "left behind nothing",
        "Exact after",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    let complaints = text(&output.stderr);
    assert!(complaints.is_empty(), "no progress bar without a terminal, but: {complaints}");
}

/// The work is over in an instant, long before the supervisor looks for the first time.
#[test]
fn all_kills_happen_however_little_there_is_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("text");
    for (words, workers, kills) in [(20, "2", 1), (60, "3", 6), (3, "1", 2)] {
        let text: Vec<String> = (0..words).map(|n| format!("w{}", n % 17)).collect();
        std::fs::write(&path, text.join(" ")).unwrap();
        let text = path.to_str().unwrap();
        let report =
            demo(&["--workers", workers, "--kills", &kills.to_string(), "--passes", "1", text]);
        assert_eq!(report["killed"], kills, "{report}");
        assert_eq!((&report["words"], &report["verified"]), (&words.into(), &true.into()));
    }
}

#[test]
fn nobody_has_to_die() {
    let directory = tempfile::tempdir().unwrap();
    let report = demo(&["--workers", "1", "--kills", "0", "--passes", "1", &a_text(&directory)]);
    assert_eq!((&report["killed"], &report["verified"]), (&0.into(), &true.into()));
}

#[test]
fn what_cannot_be_counted_is_an_error() {
    for (arguments, status, complaint) in [
        (&["demo", "/nonexistent/file"][..], 1, "/nonexistent/file"),
        (&["demo", "--workers", "0"], 2, "--workers"),
        (&["demo", "--workers", "65"], 2, "--workers"),
    ] {
        let output = dsm(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(complaint), "{arguments:?}: {said}");
    }
}
