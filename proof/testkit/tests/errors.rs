//! Each error type of the workspace shows its sentence by `Debug`: it takes that from
//! `debug_is_display!`, in the file in which it implements `Error`.
//!
//! What is read are sources, which are the same on all systems, and for Windows tests are mostly
//! built elsewhere.
#![cfg(not(windows))]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Files of Rust below a directory, without what was built.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// Types of which a source implements `Error`, and those whose `Debug` is their `Display`.
fn types(source: &str) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let code = source.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    let (mut errors, mut sentences) = (BTreeSet::new(), BTreeSet::new());
    for line in code {
        if let Some((head, name)) = line.split_once("Error for ") {
            // Not a trait of ours such as `ProviderError`, nor `From<Error> for`.
            let path = head.trim_start_matches("impl").trim_start();
            if head.starts_with("impl") && matches!(path, "" | "core::error::" | "std::error::") {
                errors.extend(name.split([' ', '{', '<']).next());
            }
        }
        assert!(
            !line.contains("thiserror::Error"),
            "it wants a derived or written `Debug`: {line}"
        );
        if let Some((_, names)) = line.split_once("debug_is_display!(") {
            let names = names.split_once(')').expect("on one line").0;
            sentences.extend(names.split(',').map(str::trim));
        }
    }
    (errors, sentences)
}

#[test]
fn every_error_shows_its_sentence() {
    let (mut files, mut all) = (Vec::new(), 0);
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), &mut files);
    for file in files.iter().filter(|file| !file.ends_with("testkit/tests/errors.rs")) {
        let source = std::fs::read_to_string(file).unwrap();
        let (errors, sentences) = types(&source);
        let forgot: Vec<_> = errors.difference(&sentences).collect();
        assert!(forgot.is_empty(), "{}: no `debug_is_display!` of {forgot:?}", file.display());
        all += errors.len();
    }
    assert!(all >= 12, "only {all} error types were found: is this the workspace?");
}

#[test]
fn a_forgotten_one_is_found() {
    let source = "
        impl core::error::Error for One {}
        // impl core::error::Error for Not {}
        impl ProviderError for Two {
        impl From<Error> for Three {
        impl std::error::Error for Four {
        dsm_core::debug_is_display!(One, Five);
        impl Error for Six {}
    ";
    let (errors, sentences) = types(source);
    assert_eq!(errors, BTreeSet::from(["One", "Four", "Six"]));
    assert_eq!(sentences, BTreeSet::from(["Five", "One"]));
}
