//! What images report: a page of counters that all real processes share.
//!
//! An image is judged in a process of its own, which can crash or hang; what it found is counted
//! here, and its parent looks at how it ended.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Failures that are kept with their text.
const KEPT: usize = 16;
const TEXT: usize = 1000;

/// Zeros are an empty tally.
#[repr(C)]
pub(crate) struct Tally {
    /// Changes of shared memory by the victim, by those who recover from its death, ...
    pub(crate) points: [AtomicU64; 3],
    /// Instructions of the victim that stored to shared memory, whether that changed it or not.
    pub(crate) stores: AtomicU64,
    /// Different images that were taken there, and points that left one that had been taken before.
    pub(crate) images: [AtomicU64; 3],
    pub(crate) equal: [AtomicU64; 3],
    /// Recoveries that were judged, by number of deaths less one.
    pub(crate) judged: [AtomicU64; 3],
    /// Those by somebody who came when all were dead.
    pub(crate) newcomers: AtomicU64,
    pub(crate) failures: AtomicU64,
    longest_recovery: AtomicU64,
    longest_wait: AtomicU64,
    most_steps: AtomicU64,
    /// Points of a recovery that was only counted.
    pub(crate) counted: AtomicU64,
    /// A bit for each of `KINDS`.
    kinds: AtomicU64,
    next: AtomicUsize,
    kept: [Record; KEPT],
}

#[repr(C)]
struct Record {
    len: AtomicUsize,
    text: [std::sync::atomic::AtomicU8; TEXT],
}

/// Kinds of points, and of outcomes. An operation names those that it must pass.
pub(crate) const KINDS: [&str; 48] = [
    "before",
    "after",
    "poisoned",
    "object lost",
    "partly",
    "an object is named",
    "an object is sized",
    "an object is removed",
    "the election is won",
    "the election is let go",
    "the control object is named",
    "the control object is sized",
    "the control object is removed",
    "a token is taken",
    "a token is given back",
    "holds the control lock",
    "holds the control lock and another",
    "holds a lock shared",
    "holds a lock of the area",
    "holds both locks of the area",
    "holds a partition",
    "holds a partition and one of the area",
    "holds a lock of the segment",
    "a segment is half made or half removed",
    "a segment of the victim is attached",
    "a process slot is taken",
    "the process is marked dead",
    "a participant is registered",
    "the elector works",
    "the control segment is unfinished",
    "recovery found the lock of a dead owner",
    "recovery found the lock clean",
    "the sweep cleared a lock of another kind",
    "a lock of another kind was left to those who know it",
    "segments were given back",
    "segments were added",
    "unpublished at death",
    "published at death",
    "poison repaired",
    "initialised by another",
    "found by name",
    "reaped",
    "taken over",
    "given out again",
    "taken by another",
    "half destroyed",
    "a thread ends",
    "a child is forked",
];

impl Tally {
    /// A tally shared by this process and all that it forks.
    pub(crate) fn shared() -> &'static Self {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping wherever the system likes it.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Self>(), prot, flags, -1, 0) };
        assert!(at != libc::MAP_FAILED, "no memory for a page of counters");
        // SAFETY: mapped for good, aligned to a page, and zeros are a value.
        unsafe { &*at.cast::<Self>() }
    }

    pub(crate) fn mark(&self, kind: &str) {
        match KINDS.iter().position(|known| *known == kind) {
            Some(bit) => self.kinds.fetch_or(1 << bit, Relaxed),
            None => unreachable!("an unknown kind of point: {kind}"),
        };
    }

    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        let bits = self.kinds.load(Relaxed);
        let set = |(bit, kind): (usize, &&'static str)| (bits & 1 << bit != 0).then_some(*kind);
        KINDS.iter().enumerate().filter_map(set).collect()
    }

    pub(crate) fn took(&self, recovery: Duration, waited: Duration) {
        self.longest_recovery.fetch_max(recovery.as_nanos() as u64, Relaxed);
        self.longest_wait.fetch_max(waited.as_nanos() as u64, Relaxed);
    }

    pub(crate) fn took_steps(&self, steps: u64) {
        self.most_steps.fetch_max(steps, Relaxed);
    }

    pub(crate) fn most_steps(&self) -> u64 {
        self.most_steps.load(Relaxed)
    }

    pub(crate) fn longest_recovery(&self) -> Duration {
        Duration::from_nanos(self.longest_recovery.load(Relaxed))
    }

    pub(crate) fn longest_wait(&self) -> Duration {
        Duration::from_nanos(self.longest_wait.load(Relaxed))
    }

    pub(crate) fn fail(&self, text: &str) {
        self.failures.fetch_add(1, Relaxed);
        let Some(record) = self.kept.get(self.next.fetch_add(1, Relaxed)) else { return };
        let bytes = &text.as_bytes()[..text.len().min(TEXT)];
        for (to, from) in record.text.iter().zip(bytes) {
            to.store(*from, Relaxed);
        }
        record.len.store(bytes.len(), Relaxed);
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        let text = |record: &Record| {
            let bytes: Vec<u8> =
                record.text[..record.len.load(Relaxed)].iter().map(|b| b.load(Relaxed)).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        self.kept[..self.next.load(Relaxed).min(KEPT)].iter().map(text).collect()
    }
}
