//! Peers: the test binary runs itself again, in a role.
//!
//! A test binary that has peers has one test that plays them, the *entry*: in a peer, [`part`] says
//! which role it has, and nothing in the test's own process. A peer and its test speak in lines,
//! over the peer's standard input and output, where lines are marked to tell them from those of the
//! test harness. Nothing hangs: a test gives up on a peer that says nothing, a peer ends with its
//! test, and by itself if it was forgotten. A peer that is dropped is killed and collected.
//!
//! Killed means `SIGKILL`, or `TerminateProcess` on Windows: no destructor, no handler, nothing of
//! the victim runs any more.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use crate::BOUND;

const ROLE: &str = "TESTKIT_ROLE";
const ARGUMENTS: &str = "TESTKIT_ARGUMENTS";
const MARK: &str = "@@";

/// A process in a role, from its test's side.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// The command that starts a peer: `entry` is the name of the test that plays roles. Arguments may
/// not contain line ends.
#[must_use]
pub fn command(entry: &str, role: &str, arguments: &[&str]) -> Command {
    command_under(&[], entry, role, arguments)
}

/// As [`command`], run by another program such as `unshare`, which the first word of `under` names.
///
/// # Panics
///
/// If the system doesn't know where the test binary is.
#[must_use]
pub fn command_under(under: &[&str], entry: &str, role: &str, arguments: &[&str]) -> Command {
    let binary = std::env::current_exe().unwrap();
    let mut command = match under {
        [] => Command::new(&binary),
        [program, words @ ..] => {
            let mut command = Command::new(program);
            command.args(words).arg(&binary);
            command
        }
    };
    give_part(&mut command, entry, role, arguments);
    command
}

/// As [`command`], of a test binary that was built for another machine.
#[must_use]
pub fn command_of(binary: &Path, entry: &str, role: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    give_part(&mut command, entry, role, arguments);
    command
}

fn give_part(command: &mut Command, entry: &str, role: &str, arguments: &[&str]) {
    command
        .args(["--exact", entry, "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(ARGUMENTS, arguments.join("\n"));
}

impl Peer {
    /// Starts a peer.
    ///
    /// # Panics
    ///
    /// If it can't be started.
    #[must_use]
    pub fn start(entry: &str, role: &str, arguments: &[&str]) -> Self {
        Self::spawn(&mut command(entry, role, arguments)).unwrap()
    }

    /// Starts a peer by a command from [`command`], to which something was added.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn spawn(command: &mut Command) -> std::io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.into_iter().flat_map(|o| BufReader::new(o).lines()) {
                let Ok(line) = line else { return };
                // The harness writes the test's name without ending the line.
                if let Some((_, said)) = line.split_once(MARK) {
                    if sender.send(said.to_owned()).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self { child, input, lines })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Says a line to it.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
    }

    /// Its next line; `None` if it has ended.
    ///
    /// # Panics
    ///
    /// If it stays silent.
    pub fn try_hear(&mut self) -> Option<String> {
        match self.lines.recv_timeout(BOUND) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => panic!("the peer says nothing: {self:?}"),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Its next line.
    ///
    /// # Panics
    ///
    /// If it ends or stays silent.
    pub fn hear(&mut self) -> String {
        self.try_hear().unwrap_or_else(|| panic!("the peer has ended: {:?}", self.child.wait()))
    }

    /// Its next line, which must be this one.
    ///
    /// # Panics
    ///
    /// If it is another, or there is none.
    pub fn expect(&mut self, line: &str) {
        assert_eq!(self.hear(), line);
    }

    /// Says a line and hears the answer.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    /// Kills it, and returns at once: on Unix it stays a zombie until it is collected, on Windows
    /// its process object stays.
    ///
    /// # Panics
    ///
    /// If the system refuses.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Panics
    ///
    /// If it has ended by itself: it should have been there to be killed.
    pub fn kill_and_collect(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the peer ended by itself: {status}");
        }
        self.kill();
        self.child.wait().unwrap();
    }

    /// Kills it if it hasn't been, and waits until it is gone: what dropping it does, said aloud.
    pub fn end(self) {
        drop(self);
    }

    /// Lets it end by itself and checks that it did well: its input ends.
    ///
    /// # Panics
    ///
    /// If it failed, or goes on.
    pub fn finish(mut self) {
        drop(self.input.take());
        let end = Instant::now() + BOUND;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "the peer failed: {status}");
                return;
            }
            assert!(Instant::now() < end, "the peer doesn't end");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A peer's part, from its own side.
#[derive(Debug)]
pub struct Part {
    /// The role.
    pub role: String,
    /// What the test passed on.
    pub arguments: Vec<String>,
}

/// The part that this process was started for; `None` in a test's own process.
///
/// A peer aborts by itself when it is twice as old as anything may take.
///
/// # Panics
///
/// If there is a role without arguments.
#[must_use]
pub fn part() -> Option<Part> {
    let role = std::env::var(ROLE).ok()?;
    let arguments = std::env::var(ARGUMENTS).unwrap().split('\n').map(str::to_owned).collect();
    std::thread::spawn(|| {
        std::thread::sleep(2 * BOUND);
        std::process::abort();
    });
    Some(Part { role, arguments })
}

impl Part {
    /// Says a line to the test.
    ///
    /// # Panics
    ///
    /// If the test is gone.
    pub fn say(&self, line: &str) {
        say(line);
    }

    /// The next line from the test; `None` when it is gone or wants no more.
    pub fn hear(&self) -> Option<String> {
        let mut line = String::new();
        let count = std::io::stdin().read_line(&mut line).unwrap_or(0);
        (count > 0).then(|| line.trim_end().to_owned())
    }

    /// The next line from the test; ends the process when the test is gone.
    pub fn ask(&self) -> String {
        self.hear().unwrap_or_else(|| std::process::exit(0))
    }

    /// Waits to be killed, or for the test to end.
    pub fn hang(&self) -> ! {
        loop {
            self.ask();
        }
    }

    /// An argument.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[must_use]
    pub fn argument(&self, index: usize) -> &str {
        &self.arguments[index]
    }

    /// An argument that is a number.
    ///
    /// # Panics
    ///
    /// If it isn't, or there are fewer.
    #[must_use]
    pub fn number(&self, index: usize) -> u64 {
        self.arguments[index].parse().unwrap()
    }
}

/// In a peer: says a line to the test.
///
/// # Panics
///
/// If the test is gone.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{MARK}{line}").unwrap();
    out.flush().unwrap();
}
