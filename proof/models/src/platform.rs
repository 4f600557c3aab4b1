//! A process of the simulated machine as a platform of the registry's.

use std::sync::atomic::{AtomicU64, Ordering};

use dsm_core::error::{ErrorKind, ProviderFailure};
use dsm_registry::{Connection, Platform};
use sim::HeapProcess;
use testkit::environment::Wrapped;

/// The platform of one process. Handles of a registry that is open in a place are shared: so each
/// process has a place of its own, which no other ever had.
pub(crate) struct Machine {
    process: &'static HeapProcess,
    place: u64,
}

impl Machine {
    pub(crate) fn of(process: &'static HeapProcess) -> Self {
        static PLACES: AtomicU64 = AtomicU64::new(0);
        Self { process, place: PLACES.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Platform for Machine {
    fn place(&self) -> String {
        format!("process {}", self.place)
    }

    fn connect(&self, _: &str, _: u32) -> Result<Connection, ProviderFailure> {
        let environment = Wrapped::new(self.process, ());
        Ok(Connection::new(self.process, environment))
    }

    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure> {
        Err(ProviderFailure::new(ErrorKind::Unsupported, "list"))
    }
}
