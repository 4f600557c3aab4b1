//! The suite against sections of the page file.
#![cfg(windows)]

use conformance::Backend;
use platform_windows::{Backing, Options, Shm, Windows};

struct OnPageFile(Shm);

impl Backend for OnPageFile {
    type Provider = Shm;
    type Root = Shm;
    type Environment = Windows;

    const PROCESSES: bool = true;
    const LISTS: bool = false;
    const THREADS: bool = true;
    const PROOFS: bool = true;
    const BLANKS: bool = false;
    const TOO_LARGE: usize = 1 << 46;

    fn create(namespace: &str) -> Self {
        let options = Options::new().backing(Backing::PageFile);
        Self(Shm::with_options(namespace, options).unwrap())
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

    fn environment(&self) -> Windows {
        self.0.environment()
    }
}

conformance::suite!(OnPageFile);
