//! Running a tool that is expected to find something.
//!
//! The tools of this program are run as children of it; models and tests of other crates are built
//! first, with the cfg (and with shuttle or loom), and then run by name. A child leads a process
//! group of its own, so that what does not come to an end is stopped together with its children.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dsm_core::planted::{Bug, VARIABLE};
use serde_json::Value;

use testkit::tool::text;

/// Seconds that any probe may take, if ten times what it takes without a bug is less.
const LEAST: u64 = 60;
/// Seconds that a probe may take without a bug.
const MOST: u64 = 300;

/// The target that is the library itself.
pub(crate) const LIB: &str = "lib";

/// What is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// `crash images`.
    Images { op: &'static str, depth: u8, sample: Option<u64>, rubbish: bool },
    /// `crash swarm`.
    Swarm { seconds: u64 },
    /// `crash models`, one of them.
    Play { model: &'static str, iterations: u64 },
    /// A test of a crate, in the target of that name or [`LIB`]; one of loom's if `model`.
    Test { package: &'static str, target: &'static str, name: &'static str, model: bool },
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Images { op, depth, sample, rubbish } => {
                write!(f, "images --op {op}{}", if *rubbish { " --rubbish" } else { "" })?;
                if *depth > 1 {
                    write!(f, " --depth {depth} --thorough")?;
                }
                sample.map_or(Ok(()), |sample| write!(f, " --sample {sample}"))
            }
            Self::Swarm { seconds } => write!(f, "swarm --seconds {seconds}"),
            Self::Play { model, iterations } => {
                write!(f, "models --model {model} --iterations {iterations}")
            }
            Self::Test { package, target, name, model } => {
                let kind = if *model { "model" } else { "test" };
                write!(f, "{kind} {package}/{target}::{name}")
            }
        }
    }
}

/// What came of it.
#[derive(Clone)]
pub(crate) struct Outcome {
    pub(crate) passed: bool,
    /// It was stopped.
    pub(crate) endless: bool,
    pub(crate) points: Option<u64>,
    pub(crate) seconds: f64,
    /// The first complaint.
    pub(crate) said: String,
    /// All that was printed.
    pub(crate) all: String,
}

/// Builds tests, and runs probes.
pub(crate) struct Builder {
    program: PathBuf,
    root: PathBuf,
    built: Mutex<HashMap<Program, PathBuf>>,
}

/// A program to be built: of a package, one target, and where what is built with such flags lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Program {
    package: &'static str,
    target: &'static str,
    flags: &'static str,
    directory: &'static str,
}

impl Probe {
    /// What has to be built beside this program.
    fn program(&self) -> Option<Program> {
        match *self {
            Self::Images { .. } | Self::Swarm { .. } => None,
            Self::Play { .. } => Some(Program {
                package: "models",
                target: "models",
                flags: "--cfg dsm_planted --cfg shuttle",
                directory: "target/planted-shuttle",
            }),
            Self::Test { package, target, model: true, .. } => Some(Program {
                package,
                target,
                flags: "--cfg dsm_planted --cfg loom",
                directory: "target/planted-loom",
            }),
            Self::Test { package, target, model: false, .. } => Some(Program {
                package,
                target,
                flags: "--cfg dsm_planted",
                directory: "target/planted",
            }),
        }
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Builder {
    pub(crate) fn new() -> Result<Self, String> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        Ok(Self {
            program: std::env::current_exe().map_err(text)?,
            root: manifest.ancestors().nth(2).ok_or("no workspace")?.to_owned(),
            built: Mutex::default(),
        })
    }

    /// Builds what the probe needs beside this program.
    pub(crate) fn build(&self, probe: &Probe) -> Result<(), String> {
        let Some(program) = probe.program() else { return Ok(()) };
        let mut built = self.built.lock().map_err(text)?;
        if built.contains_key(&program) {
            return Ok(());
        }
        let Program { package, target, flags, directory } = program;
        let how: &[&str] = match probe {
            Probe::Test { target: LIB, .. } => &["test", "--no-run", "--lib"],
            Probe::Test { .. } => &["test", "--no-run", "--test", target],
            _ => &["build", "--bin", target],
        };
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let output = Command::new(cargo)
            .current_dir(&self.root)
            .env("RUSTFLAGS", flags)
            .env("CARGO_TARGET_DIR", self.root.join(directory))
            .args(how)
            .args(["-p", package, "--profile", "yardsticks", "--message-format", "json"])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(text)?;
        let messages = String::from_utf8_lossy(&output.stdout);
        let executable = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| match target {
                LIB => message["target"]["name"] == package.replace('-', "_"),
                target => message["target"]["name"] == target,
            })
            .find_map(|message| message["executable"].as_str().map(PathBuf::from));
        match executable {
            Some(executable) if output.status.success() => {
                built.insert(program, executable);
                Ok(())
            }
            _ => Err(format!("{package}'s {target} cannot be built: {}", output.status)),
        }
    }

    /// Runs a probe, with a bug or without one. `usual`: the seconds that it takes without.
    pub(crate) fn run(&self, probe: &Probe, bug: Option<Bug>, usual: Option<f64>) -> Outcome {
        let started = Instant::now();
        let limit = usual.map_or(MOST, |usual| LEAST.max((usual * 10.0) as u64));
        let run = self
            .start(probe, bug)
            .and_then(|child| wait(child, Duration::from_secs(limit)).map_err(text));
        let seconds = started.elapsed().as_secs_f64();
        match run {
            Ok((passed, endless, all)) => {
                let said = if endless {
                    format!("did not come to an end within {limit} s")
                } else {
                    complaint(probe, &all)
                };
                let points = matches!(probe, Probe::Images { .. }).then(|| points(&all)).flatten();
                Outcome { passed, endless, points, seconds, said, all }
            }
            // Not having run at all is no catch.
            Err(error) => Outcome {
                passed: bug.is_some(),
                endless: false,
                points: None,
                seconds,
                said: error,
                all: String::new(),
            },
        }
    }

    /// What `build` has built for the probe.
    fn executable(&self, probe: &Probe) -> Result<PathBuf, String> {
        let built = self.built.lock().map_err(text)?;
        let found = probe.program().and_then(|program| built.get(&program).cloned());
        found.ok_or_else(|| "it was not built".into())
    }

    fn start(&self, probe: &Probe, bug: Option<Bug>) -> Result<Child, String> {
        let mut command = match *probe {
            Probe::Images { op, depth, sample, rubbish } => {
                let mut command = Command::new(&self.program);
                command.args(["images", "--op", op, "--jobs", "1", "--depth", &depth.to_string()]);
                // Else one survivor judges each image, and chance whether it is the one who can
                // tell.
                if depth > 1 {
                    command.arg("--thorough");
                }
                if rubbish {
                    command.arg("--rubbish");
                }
                if let Some(sample) = sample {
                    command.args(["--sample", &sample.to_string()]);
                }
                command
            }
            Probe::Swarm { seconds } => {
                let mut command = Command::new(&self.program);
                command.args(["swarm", "--seconds", &seconds.to_string()]);
                command
            }
            Probe::Play { model, iterations } => {
                let mut command = Command::new(self.executable(probe)?);
                command.args(["--model", model, "--iterations", &iterations.to_string()]);
                command
            }
            Probe::Test { name, .. } => {
                let mut command = Command::new(self.executable(probe)?);
                command.args(["--exact", name, "--test-threads", "1"]);
                command
            }
        };
        command.env(VARIABLE, bug.map_or("", Bug::name)).current_dir(&self.root);
        command.env_remove("RUST_BACKTRACE").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command.spawn().map_err(text)
    }
}

/// Waits for a child; returns whether it succeeded, whether it had to be stopped, and its output.
fn wait(mut child: Child, limit: Duration) -> Result<(bool, bool, String), std::io::Error> {
    let output = [read(child.stdout.take()), read(child.stderr.take())];
    let end = Instant::now() + limit;
    let (mut status, mut endless) = (child.try_wait()?, false);
    while status.is_none() {
        if Instant::now() >= end {
            endless = true;
            // SAFETY: the group of a child of ours that was not waited for.
            unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
            status = Some(child.wait()?);
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        status = child.try_wait()?;
    }
    clean_up(child.id());
    let all = output.map(|thread| thread.join().unwrap_or_default()).concat();
    Ok((status.is_some_and(|status| status.success()), endless, all))
}

/// Ends what is left of a child's group, and removes what it left in shared memory: a tool that
/// fails leaves things as they are. Whatever a tool makes has its process's number in its name.
fn clean_up(child: u32) {
    // SAFETY: the group of a child of ours; others don't join it.
    unsafe { libc::kill(-(child as i32), libc::SIGKILL) };
    let mark = format!("-{child}");
    let is_its = |name: &str| {
        let rest = name.split_once(&mark).map(|(_, rest)| rest);
        name.starts_with("dsm.") && rest.is_some_and(|r| !r.starts_with(|c: char| c.is_numeric()))
    };
    for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_its) {
            // Somebody else who cleans up may be faster.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Reads to the end, beside the child.
fn read(from: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            // What was read before an error is kept.
            let _ = from.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The first complaint in a tool's output.
fn complaint(probe: &Probe, output: &str) -> String {
    let lines = output.lines().map(str::trim);
    let found = match probe {
        Probe::Images { .. } => lines.clone().find(|line| line.starts_with("--op")),
        Probe::Swarm { .. } => lines.clone().find(|line| line.starts_with("crash: ")),
        Probe::Play { .. } => lines.clone().find(|line| line.starts_with("FAILED")),
        Probe::Test { .. } => lines.clone().skip_while(|line| !line.contains("panicked at")).nth(1),
    };
    found.or_else(|| lines.clone().rfind(|line| !line.is_empty())).unwrap_or_default().to_owned()
}

/// The points that `images` says it has gone through.
fn points(output: &str) -> Option<u64> {
    let summary = output.lines().rfind(|line| line.contains(" operations: "))?;
    let (_, rest) = summary.split_once(" operations: ")?;
    rest.split_whitespace().next()?.parse().ok()
}
