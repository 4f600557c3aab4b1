//! The autoprewarm example from end to end: real processes, real files, real kills.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use testkit::BOUND;
use testkit::program::{Watch, watch};

const BLOCK: usize = 8192;

/// The example's executable, which cargo builds beside the tests; where somebody asked cargo for
/// this test alone, it is asked for the example too (but not for another system than that of
/// cargo).
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let tests = std::env::current_exe().unwrap();
        let profile = tests.parent().unwrap().parent().unwrap();
        let program =
            profile.join("examples").join(format!("autoprewarm{}", std::env::consts::EXE_SUFFIX));
        if !program.exists() {
            if cfg!(windows) {
                panic!("build it first: --example autoprewarm");
            }
            let mut build = Command::new(env!("CARGO"));
            build.current_dir(env!("CARGO_MANIFEST_DIR"));
            build.args(["build", "--example", "autoprewarm", "--target-dir"]);
            build.arg(profile.parent().unwrap());
            assert!(build.status().unwrap().success());
        }
        program
    })
}

/// A server: a namespace of its own and a data directory.
struct Server {
    name: String,
    data: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        Self { name: testkit::name("prewarm"), data: tempfile::tempdir().unwrap() }
    }

    fn file(&self, path: &str, blocks: usize) {
        let path = self.data.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes: Vec<u8> = (0..blocks * BLOCK).map(|i| (i / 7) as u8).collect();
        std::fs::write(path, bytes).unwrap();
    }

    fn dump_file(&self) -> PathBuf {
        self.data.path().join("autoprewarm.blocks")
    }

    fn command(&self, command: &str, rest: &[&str]) -> Command {
        let mut call = Command::new(program());
        call.arg(command).arg(&self.name).arg(self.data.path()).args(rest);
        call.stdin(Stdio::null());
        call
    }

    /// Runs a command to its end.
    fn run(&self, command: &str, rest: &[&str]) -> Output {
        testkit::program::output(&mut self.command(command, rest))
    }

    /// Runs a command that must succeed; its output.
    fn ok(&self, command: &str, rest: &[&str]) -> String {
        let output = self.run(command, rest);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail; its complaint.
    fn fails(&self, command: &str, rest: &[&str]) -> String {
        let output = self.run(command, rest);
        assert_eq!(output.status.code(), Some(1), "{command} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Starts a server process.
    fn serve(&self) -> Process {
        let mut serving = self.command("serve", &[]);
        serving.stdin(Stdio::piped());
        Process::start(serving)
    }

    /// Starts a worker, and waits until it says `until`.
    fn start(&self, rest: &[&str], until: &str) -> Process {
        let mut worker = Process::start(self.command("start", rest));
        worker.wait_for(until);
        worker
    }
}

/// A process that stays, killed when dropped.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
    _watched: Watch,
}

impl Process {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let _watched = watch(&child);
        Self { child, output, _watched }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Reads its output up to a line that contains `text`, and returns that line.
    fn wait_for(&mut self, text: &str) -> String {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 {
                panic!("it ended without saying {text:?}; it said {said:?}");
            }
            if line.contains(text) {
                return line;
            }
            said.push_str(&line);
        }
    }

    fn end(mut self) -> String {
        let mut rest = String::new();
        while self.output.read_line(&mut rest).unwrap() != 0 {}
        assert!(self.child.wait().unwrap().success(), "{rest}");
        rest
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sum of bytes that `read` reports: must not depend on where the blocks came from.
fn sum(line: &str) -> &str {
    line.trim().rsplit(' ').next().unwrap()
}

#[test]
fn a_pool_is_warm_again_after_a_restart() {
    let server = Server::new();
    server.file("1663/5/1259", 20);
    server.file("1663/5/1259_vm", 1);
    server.file("1663/7/42", 10);
    server.file("1663/7/43", 5);

    let worker = server.start(&[], "starts cold");
    let files = ["1663/5/1259", "1663/5/1259_vm", "1663/7/42", "1663/7/43"];
    let cold = server.ok("read", &files);
    assert!(cold.starts_with("0 blocks from the pool, 36 from files"), "{cold}");
    let warm = server.ok("read", &files);
    assert!(warm.starts_with("36 blocks from the pool, 0 from files"), "{warm}");
    assert_eq!(sum(&cold), sum(&warm));
    assert!(server.ok("dump-now", &[]).contains("wrote block details for 36 blocks"));
    server.ok("stop", &[]);
    assert!(worker.end().contains("wrote block details for 36 blocks"));

    // Before the restart one file goes, another becomes shorter.
    std::fs::remove_file(server.data.path().join("1663/7/43")).unwrap();
    server.file("1663/7/42", 4);
    let worker = server.start(&[], "prewarmed 25 of 36 previously-loaded blocks");
    let status = server.ok("status", &[]);
    assert!(status.contains(&format!("worker      pid {}", worker.child.id())), "{status}");
    assert!(status.contains("pool        25 of 8192 blocks"), "{status}");
    let warm = server.ok("read", &["1663/5/1259", "1663/5/1259_vm"]);
    assert!(warm.starts_with("21 blocks from the pool, 0 from files"), "{warm}");
    server.ok("stop", &[]);
    assert!(worker.end().contains("wrote block details for 25 blocks"));
}

#[test]
fn a_small_pool_is_filled_and_no_more() {
    let server = Server::new();
    server.file("1/2/3", 20);
    let blocks: Vec<String> = (0..20).map(|block| format!("2,1,3,0,{block}\n")).collect();
    std::fs::write(server.dump_file(), format!("<<20>>\n{}", blocks.concat())).unwrap();
    let worker = server.start(&["--pool", "8"], "prewarmed 8 of 20");
    let read = server.ok("read", &["1/2/3"]);
    assert!(read.starts_with("8 blocks from the pool, 12 from files"), "{read}");
    server.ok("stop", &[]);
    worker.end();
}

#[test]
fn a_second_worker_is_refused_and_a_killed_one_replaced() {
    let server = Server::new();
    server.file("1/2/3", 3);
    let mut worker = server.start(&["--interval", "1"], "starts cold");
    server.ok("read", &["1/2/3"]);
    let complaint = server.fails("start", &[]);
    let pid = worker.child.id();
    assert!(complaint.contains(&format!("already running for {:?} with pid {pid}", server.name)));
    worker.wait_for("wrote block details for 3 blocks");

    // Something must stay in the namespace for the pool to survive its worker.
    let mut other = server.serve();
    other.say("1/2/3");
    other.wait_for("3 blocks from the pool, 0 from files");
    worker.kill();
    let replacement = server.start(&["--interval", "1"], "wrote block details for 3 blocks");
    assert_ne!(replacement.child.id(), pid);
    drop(other);
    server.ok("stop", &[]);
    replacement.end();
}

#[test]
fn a_killed_loader_is_replaced_where_it_was() {
    const BLOCKS: u32 = 3000;
    let server = Server::new();
    server.file("1/2/3", 0);
    let file = std::fs::File::options().write(true).open(server.data.path().join("1/2/3"));
    file.unwrap().set_len(u64::from(BLOCKS) * BLOCK as u64).unwrap();
    let blocks: String = (0..BLOCKS).map(|block| format!("2,1,3,0,{block}\n")).collect();
    std::fs::write(server.dump_file(), format!("<<{BLOCKS}>>\n{blocks}")).unwrap();

    // The loader takes some ten milliseconds; who comes too late tries again.
    let killed_in_time = (0..20).any(|_| {
        let mut observer = server.serve();
        status(&mut observer);
        let mut worker = server.start(&[], "autoprewarm worker");
        if let Some(loader) = loader_at_work(&mut observer) {
            testkit::program::kill(loader);
        }
        drop(observer);
        let mut said = String::new();
        let done = format!("prewarmed {BLOCKS} of {BLOCKS}");
        while !said.contains(&done) {
            assert_ne!(worker.output.read_line(&mut said).unwrap(), 0, "it said only {said:?}");
        }
        server.ok("stop", &[]);
        assert!(worker.end().contains(&format!("wrote block details for {BLOCKS} blocks")));
        said.contains("the loader of database 2 died; another goes on")
    });
    assert!(killed_in_time);
}

/// What a server process says of the worker: all lines of its status.
fn status(observer: &mut Process) -> String {
    observer.say("status");
    let mut status = String::new();
    while !status.contains("prewarmed") {
        assert_ne!(observer.output.read_line(&mut status).unwrap(), 0, "it said only {status:?}");
    }
    status
}

/// The worker's loader, once it has loaded something; `None` if it has loaded everything.
fn loader_at_work(observer: &mut Process) -> Option<u32> {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < BOUND, "nothing is loaded");
        let status = status(observer);
        if status.contains("Loaded") {
            return None;
        }
        let loader = status.lines().find_map(|line| line.strip_prefix("loader      pid "));
        match loader {
            Some(pid) if !status.contains("prewarmed   0\n") => return Some(pid.parse().unwrap()),
            _ => {}
        }
    }
}

#[test]
fn a_damaged_dump_file_is_refused_by_line_and_left_alone() {
    let server = Server::new();
    server.file("1/2/3", 3);
    for (content, complaint) in [
        ("<<2>>\n2,1,3,0,0\n2,1,3,0;1\n", "line 3"),
        ("<<3>>\n2,1,3,0,0\n", "line 3: the file ends after 1 of the 3 blocks"),
        ("<<99999999999999999999>>\n", "line 1"),
        ("", "line 1"),
    ] {
        std::fs::write(server.dump_file(), content).unwrap();
        let said = server.fails("start", &[]);
        assert!(said.contains(complaint), "{content:?}: {said}");
        assert_eq!(std::fs::read_to_string(server.dump_file()).unwrap(), content);
        // And nobody who comes after it writes an empty list over it.
        assert!(server.fails("dump-now", &[]).contains("no worker has been started"));
    }
}
