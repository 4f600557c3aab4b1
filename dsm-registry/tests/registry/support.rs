//! Real processes for tests: the test binary runs itself again, as a *peer* with a role.
//!
//! The one `#[test] fn peer()` calls [`play`] with all roles; without the environment variable that
//! names a role it does nothing. A peer speaks with its test in lines: `say` writes one, `ask`
//! reads one; both ends give up after a while, so that nothing hangs.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use dsm_registry::{Builder, Registry};

const ROLE: &str = "DSM_REGISTRY_TEST_ROLE";
const SPACE: &str = "DSM_REGISTRY_TEST_SPACE";
const ARGUMENT: &str = "DSM_REGISTRY_TEST_ARGUMENT";

/// How long anything may take before a test gives up.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// A namespace of one test: nothing of it may be left when it is dropped.
pub(crate) struct Space {
    pub(crate) name: String,
    /// Dropped with this: then the watchdog goes.
    _alive: Sender<()>,
}

impl Space {
    pub(crate) fn new(test: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}-{count}-{test}", std::process::id());
        let (alive, watched) = channel();
        let watched_name = name.clone();
        std::thread::spawn(move || {
            if watched.recv_timeout(2 * BOUND) == Err(RecvTimeoutError::Timeout) {
                let _ = writeln!(std::io::stderr(), "{watched_name} takes too long");
                std::process::abort();
            }
        });
        Self { name, _alive: alive }
    }

    pub(crate) fn builder(&self) -> Builder {
        Registry::builder(&self.name)
    }

    pub(crate) fn open(&self) -> Registry {
        Registry::open(&self.name).unwrap()
    }

    /// Objects of the namespace in shared memory.
    pub(crate) fn objects(&self) -> Vec<String> {
        objects_of(&self.name)
    }

    pub(crate) fn peer(&self, role: &str) -> Peer {
        self.peer_with(role, "")
    }

    pub(crate) fn peer_with(&self, role: &str, argument: &str) -> Peer {
        Peer::spawn(role, &self.name, argument)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let left = self.objects();
        let _ = Registry::destroy(&self.name);
        let still = self.objects();
        for name in &still {
            let _ = std::fs::remove_file(format!("/dev/shm/{name}"));
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left in shared memory: {left:?}; after destroy: {still:?}");
        }
    }
}

/// Names in `/dev/shm` that belong to the namespace.
pub(crate) fn objects_of(namespace: &str) -> Vec<String> {
    std::fs::read_dir("/dev/shm")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(namespace))
        .collect()
}

/// A process with a role. Killed when dropped.
pub(crate) struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Peer {
    fn spawn(role: &str, space: &str, argument: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["peer", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(SPACE, space)
            .env(ARGUMENT, argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines() {
                let Ok(line) = line else { return };
                // libtest writes "test peer ... " before what the role says, without a newline.
                if let Some((_, said)) = line.split_once("@@") {
                    if send.send(said.to_owned()).is_err() {
                        return;
                    }
                }
            }
        });
        Self { child, input, lines }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that the peer says.
    pub(crate) fn hear(&mut self) -> String {
        match self.lines.recv_timeout(BOUND) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("the peer says nothing"),
            Err(RecvTimeoutError::Disconnected) => panic!("the peer is gone: {:?}", self.child),
        }
    }

    pub(crate) fn expect(&mut self, line: &str) {
        assert_eq!(self.hear(), line);
    }

    pub(crate) fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGKILL without reaping: a zombie stays until the peer is dropped.
    pub(crate) fn kill_to_zombie(&mut self) {
        self.child.kill().unwrap();
    }

    /// Lets it end by itself and checks that it did well.
    pub(crate) fn finish(mut self) {
        drop(self.input.take());
        let end = Instant::now() + BOUND;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "the peer failed: {status}");
                return;
            }
            assert!(Instant::now() < end, "the peer doesn't end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a peer knows of its test.
pub(crate) struct Part {
    pub(crate) space: String,
    pub(crate) argument: String,
}

impl Part {
    pub(crate) fn open(&self) -> Registry {
        Registry::open(&self.space).unwrap()
    }

    pub(crate) fn say(&self, line: &str) {
        let mut out = std::io::stdout().lock();
        writeln!(out, "@@{line}").unwrap();
        out.flush().unwrap();
    }

    /// The next line from the test; ends the process when the test is gone.
    pub(crate) fn ask(&self) -> String {
        let mut line = String::new();
        if std::io::stdin().read_line(&mut line).unwrap_or(0) == 0 {
            std::process::exit(0);
        }
        line.trim_end().to_owned()
    }

    /// Waits for SIGKILL, or for the test to end.
    pub(crate) fn hang(&self) -> ! {
        loop {
            self.ask();
        }
    }
}

/// What a peer can be told to do.
pub(crate) type Roles = &'static [(&'static str, fn(&Part))];

/// Plays the role that this process was started for, if any.
pub(crate) fn play(all: &[Roles]) {
    let Ok(role) = std::env::var(ROLE) else { return };
    std::thread::spawn(|| {
        std::thread::sleep(2 * BOUND);
        std::process::abort();
    });
    let part =
        Part { space: std::env::var(SPACE).unwrap(), argument: std::env::var(ARGUMENT).unwrap() };
    let mut roles = all.iter().copied().flatten();
    let (_, act) = roles.find(|(name, _)| *name == role).expect("no such role");
    act(&part);
}
