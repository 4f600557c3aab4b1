//! The suite against mapped files.
#![cfg(any(unix, windows))]

use std::path::PathBuf;
use std::process::Command;

use conformance::Backend;
use dsm_core::handle::SegmentHandle;
#[cfg(unix)]
use platform_posix::{File, Posix as Environment};
#[cfg(windows)]
use platform_windows::{File, Windows as Environment};

const DIRECTORY: &str = "CONFORMANCE_DIRECTORY";

struct OnFile {
    file: File,
    directory: PathBuf,
    _removed_at_the_end: Option<tempfile::TempDir>,
}

impl Backend for OnFile {
    type Provider = File;
    type Root = File;
    type Environment = Environment;

    const PROCESSES: bool = true;
    const LISTS: bool = true;
    const THREADS: bool =
        cfg!(any(target_os = "linux", target_os = "freebsd", target_os = "macos", windows));
    const PROOFS: bool = true;
    const BLANKS: bool = cfg!(unix);
    // Beyond the largest file of common file systems, so that no disk is filled to find out.
    const TOO_LARGE: usize = conformance::bytes_of(62);

    fn create(namespace: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = File::new(directory.path(), namespace).unwrap();
        Self { file, directory: directory.path().into(), _removed_at_the_end: Some(directory) }
    }

    fn join(namespace: &str) -> Self {
        let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
        let file = File::new(&directory, namespace).unwrap();
        Self { file, directory, _removed_at_the_end: None }
    }

    fn provider(&self) -> &File {
        &self.file
    }

    fn root(&self) -> &File {
        &self.file
    }

    fn environment(&self) -> Environment {
        self.file.environment()
    }

    fn share(&self, child: &mut Command) {
        child.env(DIRECTORY, &self.directory);
    }

    fn unlink(&self, handle: SegmentHandle) -> bool {
        conformance::unlink_file(&self.directory, self.file.namespace().as_str(), handle)
    }
}

conformance::suite!(OnFile);
