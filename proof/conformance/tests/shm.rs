//! The suite against the shared memory that is a platform's default: POSIX shared memory, or
//! temporary files on Windows.
#![cfg(any(unix, windows))]

use conformance::Backend;
use dsm_core::handle::SegmentHandle;
#[cfg(unix)]
use platform_posix::{Posix as Environment, Shm};
#[cfg(windows)]
use platform_windows::{Scope, Shm, Windows as Environment};

struct OnShm(Shm);

impl Backend for OnShm {
    type Provider = Shm;
    type Root = Shm;
    type Environment = Environment;

    const PROCESSES: bool = true;
    const LISTS: bool = cfg!(any(target_os = "linux", windows));
    const THREADS: bool =
        cfg!(any(target_os = "linux", target_os = "freebsd", target_os = "macos", windows));
    const PROOFS: bool = true;
    const BLANKS: bool = cfg!(unix);
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

    fn environment(&self) -> Environment {
        self.0.environment()
    }

    fn unlink(&self, handle: SegmentHandle) -> bool {
        #[cfg(unix)]
        let directory = std::path::PathBuf::from("/dev/shm");
        #[cfg(windows)]
        let directory = Shm::directory(Scope::Local);
        conformance::unlink_file(&directory, self.0.namespace().as_str(), handle)
    }
}

conformance::suite!(OnShm);
