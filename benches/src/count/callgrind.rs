//! Runs a program under callgrind, and reads what it says.

use std::io::ErrorKind;
use std::process::{Command, Output, Stdio};

use serde::{Deserialize, Serialize};

use super::environment::Environment;

/// What a program says at the end of a run that is counted.
#[derive(Serialize, Deserialize)]
pub struct Ran {
    /// Operations that it did.
    pub operations: u64,
    /// What it was compiled with, and the processor it saw.
    pub environment: Environment,
}

/// A run that was counted.
#[derive(Debug, PartialEq)]
pub struct Counted {
    /// Operations that were done.
    pub operations: u64,
    /// Instructions of what was timed of them.
    pub instructions: u64,
}

/// Instructions an operation, as two lengths of a work tell.
///
/// # Errors
///
/// If the longer one is not longer, in operations and instructions.
pub fn an_operation(short: &Counted, long: &Counted) -> Result<f64, String> {
    match (
        long.operations.checked_sub(short.operations),
        long.instructions.checked_sub(short.instructions),
    ) {
        (Some(operations @ 1..), Some(instructions @ 1..)) => {
            Ok(instructions as f64 / operations as f64)
        }
        _ => {
            Err(format!("two lengths of a work are no longer than each other: {short:?}, {long:?}"))
        }
    }
}

/// The command that counts nothing until the program says so. The environment's variables stay
/// behind: they may change how the C library and allocators work, and what valgrind does.
fn valgrind() -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.env_clear().stdin(Stdio::null());
    for name in ["PATH", "VALGRIND_LIB"] {
        valgrind.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    valgrind
}

fn start(command: &mut Command) -> Result<Output, String> {
    command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            "valgrind, which counts the instructions, is not installed; it is a \
                                package of that name: `apt-get install valgrind`, or `dnf`, \
                                `zypper`, `apk add` or `pkg install`"
                .to_owned()
        }
        _ => format!("cannot start valgrind: {error}"),
    })
}

/// Finds out whether there is a valgrind.
///
/// # Errors
///
/// How to install it.
pub fn find() -> Result<(), String> {
    let output = start(valgrind().arg("--version"))?;
    if output.status.success() { Ok(()) } else { Err(failure(&output)) }
}

/// Runs this program again under callgrind, with `arguments` that make it do a work, and print
/// [`Ran`] as JSON.
///
/// # Errors
///
/// Why nothing was counted.
pub fn count(arguments: &[String]) -> Result<(Counted, Environment), String> {
    let program = std::env::current_exe().map_err(|e| format!("cannot find myself: {e}"))?;
    let output = start(
        valgrind()
            .args(["--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file=/dev/null"])
            .arg(program)
            .args(arguments),
    )?;
    if !output.status.success() {
        return Err(failure(&output));
    }
    let Ran { operations, environment } = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("a counted process printed something else: {e}"))?;
    let instructions = total(&String::from_utf8_lossy(&output.stderr))?;
    Ok((Counted { operations, instructions }, environment))
}

/// The instructions that callgrind's log says it has counted.
///
/// Its last lines are
///
/// ```text
/// ==123== Events    : Ir
/// ==123== Collected : 707075
/// ```
///
/// with a number for each event; more events than `Ir`, the instructions, were not asked for.
fn total(log: &str) -> Result<u64, String> {
    let said = |label: &str| {
        let mut lines = log.lines().filter_map(|line| {
            let (_, line) = line.strip_prefix("==")?.split_once("== ")?;
            let (before, after) = line.split_once(':')?;
            (before.trim() == label).then(|| after.trim())
        });
        match (lines.next(), lines.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(format!("callgrind's log has no line {label:?}:\n{log}")),
            _ => Err(format!("callgrind's log has more than one line {label:?}:\n{log}")),
        }
    };
    let (events, collected) = (said("Events")?, said("Collected")?);
    if events != "Ir" {
        return Err(format!("callgrind counted {events:?} in place of \"Ir\""));
    }
    collected.parse().map_err(|e| format!("callgrind collected {collected:?}: {e}"))
}

/// Why a run under valgrind failed.
fn failure(output: &Output) -> String {
    let log = String::from_utf8_lossy(&output.stderr);
    match log.lines().find(|line| line.contains("unhandled instruction")) {
        Some(line) => format!(
            "this valgrind does not know an instruction of the program ({}); build it for an \
             older processor (without `-C target-cpu`), or install a newer valgrind",
            line.trim()
        ),
        None => format!("the counted process failed: {}\n{log}", output.status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
==12345== Callgrind, a call-graph generating cache profiler
==12345== Copyright (C) 2002-2017, and GNU GPL'd, by Josef Weidendorfer et al.
==12345== Using Valgrind-3.19.0 and LibVEX; rerun with -h for copyright info
==12345== Command: target/release/instructions --run 1000
==12345== 
==12345== For interactive control, run 'callgrind_control -h'.
Collected : 1
==12345== 
==12345== Events    : Ir
==12345== Collected : 707075
==12345== 
==12345== I   refs:      707,075
";

    #[test]
    fn the_total_is_read() {
        assert_eq!(total(LOG), Ok(707_075));
    }

    #[test]
    fn a_log_that_is_cut_off_gives_no_total() {
        let cut = LOG.split("==12345== Collected").next().expect("a first part");
        let error = total(cut).expect_err("no total");
        assert!(error.contains("\"Collected\""), "{error}");
        assert!(total("").is_err());
    }

    #[test]
    fn two_totals_are_none() {
        assert!(total(&format!("{LOG}{LOG}")).expect_err("which?").contains("more than one"));
    }

    #[test]
    fn other_events_are_refused() {
        let more = LOG.replace(": Ir", ": Ir Dr").replace("707075", "707075 3");
        assert!(total(&more).expect_err("what is Dr?").contains("Ir Dr"));
        let odd = LOG.replace("707075", "many");
        assert!(total(&odd).expect_err("not a number").contains("\"many\""));
    }

    #[test]
    fn what_is_the_same_in_both_lengths_cancels() {
        let short = Counted { operations: 10, instructions: 5_000 + 10 * 7 };
        let long = Counted { operations: 110, instructions: 5_000 + 110 * 7 };
        assert_eq!(an_operation(&short, &long), Ok(7.0));
    }

    #[test]
    fn equal_lengths_tell_nothing() {
        let nothing = Counted { operations: 10, instructions: 0 };
        let longer = Counted { operations: 20, instructions: 0 };
        assert!(an_operation(&nothing, &nothing).is_err());
        assert!(an_operation(&nothing, &longer).is_err(), "nobody counted");
        assert!(an_operation(&longer, &nothing).is_err());
    }
}
