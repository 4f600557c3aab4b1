//! Child processes: the test binary once more, in a role.
//!
//! A child is told its role, its namespace and (by [`Backend::share`]) whatever else it needs in
//! environment variables, and runs the test `child_process` alone. Parent and child then talk in
//! lines: a role reads words from its standard input and answers on standard output, where its lines are
//! marked to tell them from those of the test harness. A child that is dropped is killed and reaped.

use std::io::{BufRead, BufReader, Lines, StdinLock, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::{Backend, Context, control, liveness, segments, waits};

const ROLE: &str = "CONFORMANCE_ROLE";
const NAMESPACE: &str = "CONFORMANCE_NAMESPACE";
const MARK: &str = "@child ";

/// Longer than anything takes; a child that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A child process, from its parent's side.
pub struct Child {
    process: std::process::Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

/// A role, from the child's side.
pub struct Parent {
    lines: Lines<StdinLock<'static>>,
}

impl<B: Backend> Context<B> {
    /// Starts a child in a role.
    ///
    /// # Panics
    ///
    /// If it can't be started.
    #[must_use]
    pub fn spawn(&self, role: &str) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", self.entry, "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(NAMESPACE, &self.namespace)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        self.backend.share(&mut command);
        let mut process = command.spawn().unwrap();
        let (output, input) = (process.stdout.take().unwrap(), process.stdin.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // The harness prints the test's name without ending the line.
                if let Some((_, said)) = line.split_once(MARK) {
                    if sender.send(said.to_owned()).is_err() {
                        return;
                    }
                }
            }
        });
        Child { process, input, lines }
    }
}

impl Child {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Says a line to the child.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
        self.input.flush().unwrap();
    }

    /// The child's next line.
    ///
    /// # Panics
    ///
    /// If it ends or stays silent.
    #[must_use]
    pub fn hear(&mut self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the child says nothing")
    }

    /// Says a line and hears the answer.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    /// Kills it at once, without reaping it: it stays a zombie.
    ///
    /// # Panics
    ///
    /// If the system refuses.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
    }

    /// Kills it and reaps it.
    pub fn end(mut self) {
        self.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Parent {
    /// Answers a line.
    ///
    /// # Panics
    ///
    /// If the parent has gone.
    pub fn say(&self, line: &str) {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{MARK}{line}").unwrap();
        out.flush().unwrap();
    }

    /// The parent's next line; `None` once it has gone or wants no more.
    pub fn hear(&mut self) -> Option<String> {
        self.lines.next()?.ok()
    }
}

/// Plays the role given by the environment, in a child; does nothing otherwise.
///
/// # Panics
///
/// If the role is unknown.
pub fn in_child<B: Backend>() {
    let (Ok(role), Ok(namespace)) = (std::env::var(ROLE), std::env::var(NAMESPACE)) else { return };
    let backend = B::join(&namespace);
    let parent = Parent { lines: std::io::stdin().lines() };
    match role.as_str() {
        "sharer" => segments::sharer(&backend, parent),
        "holder" => control::holder(&backend, &parent),
        "newcomer" => control::newcomer(&backend, parent),
        "churner" => control::churner(&backend, &parent),
        "claimant" => liveness::claimant(&backend, parent),
        "waiter" => waits::waiter(&backend, &parent),
        other => panic!("no role {other}"),
    }
}
