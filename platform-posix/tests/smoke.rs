//! The least that everything else depends on: memory, election, liveness, waits.

use std::time::Duration;

use dsm_core::env::{Entropy, Liveness};
use dsm_core::error::ErrorKind;
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::{Election, ProviderError, Root, SegmentProvider};
use platform_posix::Shm;

fn shm(test: &str) -> Shm {
    Shm::new(&format!("test-{test}-{}", std::process::id())).unwrap()
}

#[test]
fn a_segment_is_created_shared_and_destroyed() {
    let shm = shm("segment");
    let handle = SegmentHandle::from_raw(0x1234_5678_9abc_def0).unwrap();
    let (mapping, id) = shm.create(handle, 100_000, 4096).unwrap();
    assert_eq!(mapping.len, 100_000);
    assert_eq!(shm.create(handle, 1, 1).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let other = shm.attach(handle, id).unwrap();
    // SAFETY: within the mapping.
    let (written, read) = unsafe { (mapping.base.add(99_999), other.base) };
    // SAFETY: within the mapping.
    let read = unsafe { read.add(99_999) };
    // SAFETY: mapped, and used by this thread alone.
    unsafe { written.write(7) };
    // SAFETY: as above.
    assert_eq!(unsafe { read.read() }, 7);
    shm.reserve(handle, &mapping, 0..100_000).unwrap();
    assert!(shm.stat(handle).unwrap().reserved >= 100_000);
    let foreign = ObjectId { device: id.device, object: id.object + 1 };
    assert_eq!(shm.destroy(handle, foreign).unwrap_err().kind(), ErrorKind::Foreign);
    shm.destroy(handle, id).unwrap();
    shm.destroy(handle, id).unwrap();
    assert_eq!(shm.attach(handle, id).unwrap_err().kind(), ErrorKind::NotFound);
    // SAFETY: not used any more.
    unsafe { shm.detach(mapping) };
    // SAFETY: not used any more.
    unsafe { shm.detach(other) };
}

#[test]
fn an_election_excludes_and_a_token_lives() {
    let shm = shm("election");
    assert_eq!(shm.elect_existing(Duration::ZERO).err().unwrap().kind(), ErrorKind::NotFound);
    let mut election = shm.elect(Duration::ZERO).unwrap();
    assert_eq!(election.size(), 0);
    assert_eq!(shm.elect(Duration::from_millis(5)).err().unwrap().kind(), ErrorKind::TimedOut);
    let mapping = election.create(8192).unwrap();
    assert_eq!(mapping.len, 8192);
    assert_eq!(election.size(), 8192);

    let (one, two) = (shm.environment(), shm.environment());
    one.claim(3).unwrap();
    let proof = one.process_proof();
    assert_eq!(two.claim(3).unwrap_err().kind, ErrorKind::AlreadyExists);
    assert_eq!(one.claim(3).unwrap_err().kind, ErrorKind::AlreadyExists);
    assert!(!one.process_is_dead(3, &proof) && !two.process_is_dead(3, &proof));
    one.release(3);
    assert!(two.process_is_dead(3, &proof));
    assert_ne!(one.next_u64(), one.next_u64());

    drop(election);
    let mut election = shm.elect_existing(Duration::ZERO).unwrap();
    assert_eq!(election.size(), 8192);
    election.remove().unwrap();
    election.remove().unwrap();
    drop(election);
    assert_eq!(shm.peek().err().unwrap().kind(), ErrorKind::NotFound);
    // SAFETY: not used any more.
    unsafe { shm.unmap(mapping) };
}
