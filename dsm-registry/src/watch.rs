//! The watch of `platform-posix`, as a [`Watch`].

use std::time::Duration;

use dsm_core::env::ProcessProof;
use dsm_core::error::ProviderFailure;

use crate::reaper::{Watch, Watched};

impl Watch for platform_posix::Watch {
    fn add(&mut self, key: u64, whom: &ProcessProof) -> Watched {
        match self.add(key, whom) {
            platform_posix::Watched::Seen => Watched::Seen,
            platform_posix::Watched::Dead => Watched::Dead,
            platform_posix::Watched::Unseen => Watched::Unseen,
        }
    }

    fn remove(&mut self, key: u64) {
        self.remove(key);
    }

    fn wait(&mut self, time: Duration) -> Vec<u64> {
        self.wait(time)
    }

    fn interrupt(&self) -> Box<dyn Fn() + Send + Sync> {
        let interrupt = self.interrupt();
        Box::new(move || interrupt.send())
    }
}

/// A new one.
pub(crate) fn watch() -> Result<Box<dyn Watch>, ProviderFailure> {
    Ok(Box::new(platform_posix::Watch::new()?))
}
