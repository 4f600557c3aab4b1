//! Namespaces for tests, and peers (see `testkit`) with a part in them.
//!
//! The one `#[test] fn peer()` calls [`play`] with all roles; in the test's own process it does
//! nothing.

use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use dsm_registry::{Builder, Registry};
pub(crate) use testkit::BOUND;
use testkit::process::Peer;

/// A namespace of one test: nothing of it may be left when it is dropped.
pub(crate) struct Space {
    pub(crate) name: String,
    /// Dropped with this: then the watchdog goes.
    _alive: Sender<()>,
}

impl Space {
    pub(crate) fn new(test: &str) -> Self {
        let name = testkit::name(test);
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
    pub(crate) fn objects(&self) -> Vec<PathBuf> {
        testkit::system::objects_of(&self.name)
    }

    /// Where the control object is.
    pub(crate) fn control(&self) -> PathBuf {
        testkit::system::control_of(&self.name)
    }

    pub(crate) fn peer(&self, role: &str) -> Peer {
        self.peer_with(role, "")
    }

    pub(crate) fn peer_with(&self, role: &str, argument: &str) -> Peer {
        Peer::start("peer", role, &[&self.name, argument])
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // A scope waits for what its threads do, and not for the destructors of their thread-locals:
        // the last of them leaves the namespace.
        let mut left = self.objects();
        for _ in 0..500 {
            if left.is_empty() || std::thread::panicking() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            left = self.objects();
        }
        let _ = Registry::destroy(&self.name);
        let still = self.objects();
        for path in &still {
            let _ = std::fs::remove_file(path);
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left in shared memory: {left:?}; after destroy: {still:?}");
        }
    }
}

/// What a peer knows of its test.
pub(crate) struct Part {
    pub(crate) space: String,
    pub(crate) argument: String,
    part: testkit::process::Part,
}

impl Part {
    pub(crate) fn open(&self) -> Registry {
        Registry::open(&self.space).unwrap()
    }
}

impl std::ops::Deref for Part {
    type Target = testkit::process::Part;

    fn deref(&self) -> &testkit::process::Part {
        &self.part
    }
}

/// What a peer can be told to do.
pub(crate) type Roles = &'static [(&'static str, fn(&Part))];

/// Plays the role that this process was started for, if any.
pub(crate) fn play(all: &[Roles]) {
    let Some(part) = testkit::process::part() else { return };
    let mut roles = all.iter().copied().flatten();
    let (_, act) = roles.find(|(name, _)| *name == part.role).expect("no such role");
    let (space, argument) = (part.argument(0).to_owned(), part.argument(1).to_owned());
    act(&Part { space, argument, part });
}
