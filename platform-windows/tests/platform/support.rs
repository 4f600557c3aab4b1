//! Child processes in roles, namespaces of either backing, bytes of mappings.

use std::path::Path;
use std::time::Duration;

use dsm_core::env::ProcessProof;
use dsm_core::handle::SegmentHandle;
use dsm_core::provider::{Mapping, Root};
use dsm_core::sync::AtomicU32;
use platform_windows::{Backing, Options, Shm};
use testkit::process::{Part, Peer};

/// The test that plays roles.
const ENTRY: &str = "child_process";

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const BOTH: [Backing; 2] = [Backing::Files, Backing::PageFile];

pub(crate) fn handle(n: u64) -> SegmentHandle {
    SegmentHandle::from_raw(0x00c0_ffee_0000_0000 | n << 1).unwrap()
}

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

pub(crate) fn write_proof(proof: &ProcessProof) -> String {
    let ProcessProof { pid, start_time, pid_namespace, user } = proof;
    format!("{pid} {start_time} {pid_namespace} {user}")
}

pub(crate) fn read_proof(line: &str) -> ProcessProof {
    let parts: Vec<u64> = line.split(' ').map(|part| part.parse().unwrap()).collect();
    let [pid, start_time, pid_namespace, user] = parts[..] else { panic!("{line}") };
    ProcessProof { pid, start_time, pid_namespace, user }
}

/// The same process, seen from where its id means nothing: only its token can prove it dead.
pub(crate) fn unseen(proof: ProcessProof) -> ProcessProof {
    ProcessProof { pid_namespace: !proof.pid_namespace, ..proof }
}

/// Whether `condition` comes true within the patience of a test.
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    (0..3000).any(|_| {
        let met = condition();
        if !met {
            std::thread::sleep(Duration::from_millis(10));
        }
        met
    })
}

fn at(mapping: &Mapping, offset: usize) -> *mut u8 {
    assert!(offset < mapping.len);
    // SAFETY: within the mapping.
    unsafe { mapping.base.add(offset) }.as_ptr()
}

pub(crate) fn set(mapping: &Mapping, offset: usize, value: u8) {
    let at = at(mapping, offset);
    // SAFETY: mapped for writing; only this test uses it.
    unsafe { at.write_volatile(value) };
}

pub(crate) fn get(mapping: &Mapping, offset: usize) -> u8 {
    let at = at(mapping, offset);
    // SAFETY: mapped; only this test uses it.
    unsafe { at.read_volatile() }
}

pub(crate) fn word(mapping: &Mapping, offset: usize) -> &AtomicU32 {
    assert!(offset % 4 == 0 && offset + 4 <= mapping.len);
    let at = at(mapping, offset).cast::<u32>();
    // SAFETY: mapped for the rest of the test, aligned, and accessed as an atomic by all.
    unsafe { AtomicU32::from_ptr(at) }
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
