//! Who sweeps the dead wakes those who wait for a name that a dead one was initialising. Their
//! waits are bounded, which hides whether that wake comes: these have no end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dsm_core::env::Environment;
use dsm_core::error::ProviderFailure;
use dsm_core::provider::ProviderError;
use dsm_core::sync::AtomicU32;
use dsm_registry::system::{Options, SharedMemory};
use dsm_registry::{Connection, Platform};
#[cfg(unix)]
use platform_posix::Shm;
#[cfg(windows)]
use platform_windows::Shm;
use testkit::environment::{Hooks, Wrapped};

use crate::support::{BOUND, Part, Roles, Space};

pub(crate) const ROLES: Roles = &[("wait for a wake", wait_for_a_wake)];

/// Waits until it is woken, and says when it begins to.
#[derive(Default)]
struct Deaf(AtomicBool);

impl Hooks for Deaf {
    fn wait(&self, within: &dyn Environment, word: &AtomicU32, expected: u32, _: Duration) {
        if !self.0.swap(true, Ordering::SeqCst) {
            testkit::process::say("asleep");
        }
        within.wait(word, expected, 10 * BOUND);
    }
}

/// Shared memory, in an environment whose waits have no end.
struct Endless(SharedMemory);

impl Platform for Endless {
    fn place(&self) -> String {
        self.0.place()
    }

    fn connect(&self, namespace: &str, mode: u32) -> Result<Connection, ProviderFailure> {
        let shm = Shm::with_options(namespace, Options::new().mode(mode));
        let shm = shm.map_err(|e| e.failure())?;
        let environment = Wrapped::new(Box::new(shm.environment()), Deaf::default());
        Ok(Connection::new(shm, environment))
    }

    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure> {
        self.0.namespaces()
    }
}

fn wait_for_a_wake(part: &Part) {
    let builder = dsm_registry::Registry::builder(&part.space);
    let registry = builder.provider(Endless(SharedMemory::default())).open().unwrap();
    let _config = crate::initialise::config(&registry);
    part.say("initialised");
    part.hang();
}

#[test]
fn who_waits_for_a_name_is_woken_by_the_sweep() {
    let space = Space::new("wakes");
    let registry = space.open();
    let mut victim = space.peer("hang in initialiser");
    victim.expect("inside");
    let mut waiter = space.peer("wait for a wake");
    waiter.expect("asleep");
    victim.kill_and_collect();
    assert!(registry.reap().unwrap() > 0);
    waiter.expect("initialised");
    waiter.kill_and_collect();
    registry.reap().unwrap();
}
