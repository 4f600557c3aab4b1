//! The command `models`: builds the program of the same name with shuttle's atomics, and runs it.
//!
//! Which atomics the cores use is decided when they are compiled, so that models need a build of
//! their own. It has a directory of its own, is optimised, but not across crates, which would take
//! longer than it saves, and takes over the flags that this process was given.

mod options;

use std::path::Path;
use std::process::Command;

pub use options::Options;

const FLAG: &str = "--cfg shuttle";

/// Runs the command; whether all is well.
pub fn run(options: &Options) -> Result<bool, String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let flags = match std::env::var("RUSTFLAGS") {
        Ok(flags) => format!("{flags} {FLAG}"),
        Err(_) => FLAG.into(),
    };
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => Path::new(&target).join("shuttle"),
        None => workspace.join("target").join("shuttle"),
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let by_hand =
        format!("RUSTFLAGS=\"{flags}\" cargo run --release -p models --target-dir target/shuttle");
    let mut command = Command::new(cargo);
    command
        .current_dir(&workspace)
        .env("RUSTFLAGS", flags)
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .args(["run", "--quiet", "--release", "-p", "models", "--target-dir"])
        .arg(target)
        .arg("--")
        .args(arguments(options));
    let status = command.status().map_err(|error| {
        format!("cargo cannot be run in {workspace:?} ({error}); in a checkout: {by_hand}")
    })?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(format!("the models ended with {status}; by hand: {by_hand}")),
    }
}

fn arguments(options: &Options) -> Vec<String> {
    let mut arguments = Vec::new();
    if !options.model.is_empty() {
        arguments.push(format!("--model={}", options.model.join(",")));
    }
    match options.again {
        Some(seed) => arguments.push(format!("--again={seed}")),
        None => {
            arguments.push(format!("--iterations={}", options.iterations));
            arguments.push(format!("--seed={}", options.seed));
        }
    }
    let flags = [(options.json, "--json"), (options.list, "--list")];
    arguments.extend(flags.iter().filter(|(is, _)| *is).map(|(_, flag)| (*flag).into()));
    arguments
}
