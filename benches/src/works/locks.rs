//! Works on locks: an uncontended cycle of acquire and release.
//!
//! Ours is the recoverable reader-writer lock in a segment of a real namespace; the peer is the C
//! library's reader-writer lock, made process-shared and placed in shared memory too. The peer is
//! not robust (the C library has no robust reader-writer lock): who dies in it blocks all others.

use std::hint::black_box;

use dsm_core::handle::SegmentHandle;
use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{LockRef, Patience, RawLock};

use crate::measure::{Sample, repeat};
use crate::ours::home::Home;
use crate::peers::rwlock::Rwlock;
use crate::work::{Contestant, Lengths, Runner, Who, Work};

/// The peer.
const GLIBC: Who = Who::Peer("glibc process-shared rwlock");

/// All works of the group.
#[must_use]
pub fn works() -> Vec<Work> {
    let shared = vec![
        Contestant::new(Who::Cores, || {
            let lock = OurLock::new();
            Runner::new(move |n| lock.shared_cycles(n))
        }),
        Contestant::new(GLIBC, || {
            let lock = Rwlock::new();
            Runner::new(move |n| repeat(n, || lock.shared_cycle()))
        }),
    ];
    let exclusive = vec![
        Contestant::new(Who::Cores, || {
            let lock = OurLock::new();
            Runner::new(move |n| lock.exclusive_cycles(n))
        }),
        Contestant::new(GLIBC, || {
            let lock = Rwlock::new();
            Runner::new(move |n| repeat(n, || lock.exclusive_cycle()))
        }),
    ];
    vec![
        Work::new("lock_shared", shared).counted(Lengths::ALIKE),
        Work::new("lock_exclusive", exclusive).counted(Lengths::ALIKE),
    ]
}

/// A lock at the start of a pinned segment.
struct OurLock {
    home: Home,
    segment: SegmentHandle,
}

impl OurLock {
    fn new() -> Self {
        let home = Home::new(0);
        let size = 4096;
        let segment = home.namespace().create_segment(size, size).expect("create a segment");
        let participants = home.participant().peers().max_participants();
        assert!(RwLock::size_for(participants) <= size);
        // SAFETY: a new segment that is long enough, aligned to a page and used by nobody.
        unsafe { RwLock::init(segment.base().cast(), participants) };
        let handle = segment.handle();
        home.namespace().pin_segment(handle).expect("pin a segment");
        drop(segment);
        Self { home, segment: handle }
    }

    /// Times `cycle` on the lock.
    fn with(
        &self,
        operations: u64,
        cycle: impl Fn(LockRef<'_, RwLock>, &dsm_core::participant::Participant<'_>),
    ) -> Sample {
        let namespace = self.home.namespace();
        let segment = namespace.attach_segment(self.segment).expect("attach").expect("pinned");
        let participant = self.home.participant();
        // SAFETY: `new` built the lock at the segment's start; the segment outlives its use.
        let lock = unsafe { LockRef::new(segment.base().cast(), segment.lock_address(0)) };
        repeat(operations, || cycle(black_box(lock), &participant))
    }

    fn shared_cycles(&self, operations: u64) -> Sample {
        self.with(operations, |lock, participant| {
            let guard = lock.shared(participant, Patience::Forever);
            assert!(matches!(guard, Ok(Some(_))), "free and undamaged");
        })
    }

    fn exclusive_cycles(&self, operations: u64) -> Sample {
        self.with(operations, |lock, participant| {
            assert!(lock.exclusive(participant, Patience::Forever).is_ok(), "free");
        })
    }
}
