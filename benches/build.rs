//! Tells the programs what they were compiled with: instructions that different compilers made are
//! not compared.

use std::env::var;
use std::process::Command;

/// Settings of the release profile that may come from the environment.
const OVERRIDES: [&str; 4] = [
    "CARGO_PROFILE_RELEASE_LTO",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS",
    "CARGO_PROFILE_RELEASE_PANIC",
    "CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut build = format!("opt-level {}", var("OPT_LEVEL").unwrap_or_default());
    for name in OVERRIDES {
        println!("cargo::rerun-if-env-changed={name}");
        if let Ok(value) = var(name) {
            build += &format!(", {name}={value}");
        }
    }
    let flags = var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default().replace('\x1f', " ");
    if !flags.is_empty() {
        build += &format!(", RUSTFLAGS={flags}");
    }
    println!("cargo::rustc-env=BENCHES_BUILD={build}");
    println!("cargo::rustc-env=BENCHES_RUSTC={}", rustc());
    println!("cargo::rustc-env=BENCHES_TARGET={}", var("TARGET").unwrap_or_default());
}

fn rustc() -> String {
    let rustc = var("RUSTC").expect("cargo says which compiler it calls");
    let output = Command::new(rustc).arg("--version").output().expect("the compiler can be called");
    String::from_utf8_lossy(&output.stdout).trim().trim_start_matches("rustc ").to_owned()
}
