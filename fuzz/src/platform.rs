//! A process of the simulated machine as a platform of the registry's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dsm_core::error::{ErrorKind, ProviderFailure};
use dsm_core::provider::Forward;
use dsm_registry::{Connection, Platform};
use sim::HeapProcess;
use testkit::environment::Wrapped;

/// One process, which several own.
#[derive(Clone)]
pub(crate) struct Shared(Arc<HeapProcess>);

// SAFETY: the same process each time.
unsafe impl Forward for Shared {
    type Target = HeapProcess;

    fn target(&self) -> &HeapProcess {
        &self.0
    }
}

/// The platform of one process, in a place of its own: registries that are open in one place share
/// all they have.
#[derive(Clone)]
pub(crate) struct Machine {
    process: Shared,
    place: u64,
}

impl Machine {
    pub(crate) fn of(process: HeapProcess) -> Self {
        static PLACES: AtomicU64 = AtomicU64::new(0);
        let place = PLACES.fetch_add(1, Ordering::Relaxed);
        Self { process: Shared(Arc::new(process)), place }
    }

    pub(crate) fn process(&self) -> &HeapProcess {
        &self.process.0
    }
}

impl Platform for Machine {
    fn place(&self) -> String {
        format!("process {}", self.place)
    }

    fn connect(&self, _: &str, _: u32) -> Result<Connection, ProviderFailure> {
        let environment = Wrapped::new(Arc::clone(&self.process.0), ());
        Ok(Connection::new(self.process.clone(), environment))
    }

    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure> {
        Err(ProviderFailure::new(ErrorKind::Unsupported, "list"))
    }
}
