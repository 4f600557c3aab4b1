//! The suite against System V shared memory.
#![cfg(unix)]

use std::path::PathBuf;
use std::process::Command;

use conformance::Backend;
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::SegmentProvider;
use platform_posix::{Posix, SysV};

const DIRECTORY: &str = "CONFORMANCE_DIRECTORY";

struct OnSysV {
    sysv: SysV,
    directory: PathBuf,
    _removed_at_the_end: Option<tempfile::TempDir>,
}

impl Backend for OnSysV {
    type Provider = SysV;
    type Root = SysV;
    type Environment = Posix;

    const PROCESSES: bool = true;
    const LISTS: bool = false;
    const THREADS: bool =
        cfg!(any(target_os = "linux", target_os = "freebsd", target_os = "macos"));
    const PROOFS: bool = true;
    const TOO_LARGE: usize = conformance::bytes_of(45);

    fn create(namespace: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sysv = SysV::new(directory.path(), namespace).unwrap();
        Self { sysv, directory: directory.path().into(), _removed_at_the_end: Some(directory) }
    }

    fn join(namespace: &str) -> Self {
        let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
        let sysv = SysV::new(&directory, namespace).unwrap();
        Self { sysv, directory, _removed_at_the_end: None }
    }

    fn provider(&self) -> &SysV {
        &self.sysv
    }

    fn root(&self) -> &SysV {
        &self.sysv
    }

    fn environment(&self) -> Posix {
        self.sysv.environment()
    }

    fn share(&self, child: &mut Command) {
        child.env(DIRECTORY, &self.directory);
    }

    fn unlink(&self, handle: SegmentHandle) -> bool {
        // As `ipcrm` does.
        let other = SysV::new(&self.directory, self.sysv.namespace().as_str()).unwrap();
        other.destroy(handle, ObjectId::default()).is_ok()
    }
}

conformance::suite!(OnSysV);
