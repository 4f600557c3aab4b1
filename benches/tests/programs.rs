//! The programs, as they are called.
//!
//! Where `instructions` needs a valgrind, it is a script here, which says that every operation took
//! so many instructions: what is tested is what becomes of them. The real one is run by CI.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn ratios(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ratios")).args(arguments).output().expect("start ratios")
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

/// A folder with a program `valgrind` and a record.
struct Desk(TempDir);

impl Desk {
    /// Nothing is there.
    fn empty() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Every operation takes so many instructions.
    fn with_cost(instructions: u32) -> Self {
        let desk = Self::empty();
        desk.set_cost(instructions);
        desk
    }

    fn set_cost(&self, instructions: u32) {
        // The program's own arguments begin with `--run OPERATIONS`.
        let script = format!(
            "#!/bin/sh
            [ \"$1\" = --version ] && exit
            while [ \"$1\" != \"${{1#--}}\" ]; do shift; done
            \"$@\" || exit
            echo '==1== Events    : Ir' >&2
            echo \"==1== Collected : $((5000 + $3 * {instructions}))\" >&2\n"
        );
        let path = self.path("valgrind");
        std::fs::write(&path, script).expect("write a script");
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("chmod");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn instructions(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_instructions"))
            .env("PATH", self.0.path())
            .args([OsStr::new("--record"), self.path("record").as_os_str()])
            .args(arguments)
            .output()
            .expect("start instructions")
    }

    fn record(&self) -> String {
        std::fs::read_to_string(self.path("record")).expect("a record")
    }
}

#[test]
fn instructions_says_how_to_install_valgrind() {
    let output = Desk::empty().instructions(&["lock_shared"]);
    assert!(!output.status.success(), "{output:?}");
    assert!(text(&output.stderr).contains("apt-get install valgrind"), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn instructions_names_an_unknown_work_and_counts_the_others() {
    let output = Desk::with_cost(100).instructions(&["--json", "lock_shred", "lock_shared"]);
    assert!(!output.status.success(), "{output:?}");
    assert!(text(&output.stderr).contains("\"lock_shred\""), "{output:?}");
    let rows = text(&output.stdout);
    assert_eq!(rows.lines().count(), 2, "ours and the peer: {rows}");
    assert!(rows.lines().all(|row| row.contains("\"instructions\":100.0")), "{rows}");
}

#[test]
fn instructions_lists_what_can_be_counted() {
    let output = Desk::empty().instructions(&["--list"]);
    assert!(output.status.success(), "{output:?}");
    let works = benches::works::all().into_iter().filter(|work| work.counted.is_some());
    let works: Vec<String> = works.map(|work| work.name).collect();
    assert_eq!(text(&output.stdout).lines().collect::<Vec<_>>(), works);
}

#[test]
fn instructions_fails_where_an_operation_takes_over_three_per_cent_more() {
    let desk = Desk::with_cost(100);
    assert!(desk.instructions(&["--save", "lock_*"]).status.success());
    assert!(desk.record().contains("\"cores\": 100.0"), "{}", desk.record());
    desk.set_cost(103);
    assert!(desk.instructions(&["--check", "lock_*"]).status.success());
    desk.set_cost(104);
    let output = desk.instructions(&["--check", "lock_*"]);
    assert!(!output.status.success(), "{output:?}");
    let complaints = text(&output.stderr);
    for work in ["lock_shared", "lock_exclusive"] {
        let complaint =
            format!("{work}, cores: 104.0 instructions are 4.0 % more than the recorded 100.0");
        assert!(complaints.contains(&complaint), "{complaints}");
    }
    assert!(!text(&output.stdout).contains("glibc"), "peers are not counted: {output:?}");
}

#[test]
fn instructions_of_another_compiler_are_told_and_not_judged() {
    let desk = Desk::with_cost(100);
    assert!(desk.instructions(&["--save", "lock_shared"]).status.success());
    let rustc = "\"rustc\": \"";
    let record = desk.record().replace(rustc, &format!("{rustc}0."));
    std::fs::write(desk.path("record"), record).expect("write a record");
    desk.set_cost(200);
    let output = desk.instructions(&["--check", "lock_shared"]);
    assert!(output.status.success(), "{output:?}");
    let told = text(&output.stderr);
    assert!(told.contains("nothing is judged"), "{told}");
    assert!(told.contains("rustc: "), "{told}");
    assert!(told.contains("100.0 % more"), "{told}");
}

#[test]
fn instructions_saves_some_figures_beside_others_of_the_same_compiler_only() {
    let desk = Desk::with_cost(100);
    assert!(desk.instructions(&["--save", "lock_shared", "lock_exclusive"]).status.success());
    desk.set_cost(90);
    assert!(desk.instructions(&["--save", "lock_exclusive"]).status.success());
    let record = desk.record();
    assert_eq!(record.matches("100.0").count(), 2, "{record}");
    assert_eq!(record.matches("90.0").count(), 2, "{record}");
    std::fs::write(desk.path("record"), record.replace("\"cpu\": \"", "\"cpu\": \"mmx "))
        .expect("write a record");
    let output = desk.instructions(&["--save", "lock_exclusive"]);
    assert!(!output.status.success(), "{output:?}");
    assert!(text(&output.stderr).contains("cpu: "), "{output:?}");
    assert!(desk.record().contains("mmx"), "unchanged");
}

#[test]
fn instructions_records_nothing_if_something_was_not_counted() {
    let desk = Desk::with_cost(100);
    let output = desk.instructions(&["--save", "lock_shared", "lock_shred"]);
    assert!(!output.status.success(), "{output:?}");
    assert!(!Path::new(&desk.path("record")).exists(), "{output:?}");
}

#[test]
fn instructions_needs_a_record_to_check() {
    let output = Desk::with_cost(100).instructions(&["--check", "lock_shared"]);
    assert!(!output.status.success(), "{output:?}");
    assert!(text(&output.stderr).contains("--save"), "{output:?}");
}
