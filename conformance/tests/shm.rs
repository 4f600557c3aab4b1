//! The suite against POSIX shared memory.
#![cfg(unix)]

use conformance::Backend;
use dsm_core::handle::SegmentHandle;
use platform_posix::{Posix, Shm};

struct OnShm(Shm);

impl Backend for OnShm {
    type Provider = Shm;
    type Root = Shm;
    type Environment = Posix;

    const PROCESSES: bool = true;
    const LISTS: bool = cfg!(target_os = "linux");
    const THREADS: bool = cfg!(target_os = "linux");
    const PROOFS: bool = true;
    const TOO_LARGE: usize = conformance::bytes_of(45);

    fn create(namespace: &str) -> Self {
        Self(Shm::new(namespace).unwrap())
    }

    fn join(namespace: &str) -> Self {
        Self::create(namespace)
    }

    fn provider(&self) -> &Shm {
        &self.0
    }

    fn root(&self) -> &Shm {
        &self.0
    }

    fn environment(&self) -> Posix {
        self.0.environment()
    }

    fn unlink(&self, handle: SegmentHandle) -> bool {
        let path = format!("/dev/shm/dsm.{}.{handle}", self.0.namespace());
        std::fs::remove_file(path).is_ok()
    }
}

conformance::suite!(OnShm);
