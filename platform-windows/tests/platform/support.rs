//! Child processes in roles, namespaces of either backing, bytes of mappings.

use std::path::Path;
use std::time::Duration;

use dsm_core::handle::SegmentHandle;
use dsm_core::provider::{Mapping, Root};
use platform_windows::{Backing, Options, Shm};
use testkit::process::{Part, Peer};

/// The test that plays roles.
const ENTRY: &str = "child_process";

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const BOTH: [Backing; 2] = [Backing::Files, Backing::PageFile];

pub(crate) fn handle(n: u64) -> SegmentHandle {
    SegmentHandle::from_raw(0x00c0_ffee_0000_0000 | n << 1).unwrap()
}

pub(crate) use testkit::memory::{byte, set_byte, word};
pub(crate) use testkit::proof::{eventually, read_proof, unseen, write_proof};

/// A namespace of a test's own. Process ids alone are used again soon.
pub(crate) fn open(test: &str, backing: Backing) -> Shm {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let (pid, time) = (std::process::id(), now.as_millis() & 0xff_ffff);
    let name = format!("test-windows-{test}-{backing:?}-{pid}-{time:x}");
    Shm::with_options(&name, Options::new().backing(backing)).unwrap()
}

/// A child process in a role, told the namespace; killed and collected at the end.
pub(crate) fn spawn(role: &str, shm: &Shm) -> Peer {
    let backing = if shm.file(None).is_some() { "files" } else { "page file" };
    Peer::start(ENTRY, role, &[shm.namespace().as_str(), backing])
}

/// The namespace that a child was told.
pub(crate) fn told(part: &Part) -> Shm {
    let backing = if part.argument(1) == "files" { Backing::Files } else { Backing::PageFile };
    Shm::with_options(part.argument(0), Options::new().backing(backing)).unwrap()
}

pub(crate) fn unmap(shm: &Shm, mapping: Mapping) {
    // SAFETY: tests use a mapping no more after this.
    unsafe { shm.unmap(mapping) };
}

/// Names of the files in a folder.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
