//! Overwriting pieces of a control segment.
//!
//! Most of what is interesting is a small number in some word, or one word where another belongs.
//! What a sweep follows from one part to the next, a record of a lock to the slot of its segment,
//! is seldom hit by chance at both ends: such pieces have patches of their own, laid out as
//! `docs/LAYOUT.md` says.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arbitrary::Arbitrary;
use sim::HeapMachine;

/// A piece to be overwritten.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Patch {
    /// Bits of one word flipped.
    Flip { word: u16, bits: u64 },
    /// One word replaced by a small number.
    Small { word: u16, value: u8 },
    /// One word replaced by another of the segment.
    Copy { from: u16, to: u16 },
    /// Half a word replaced.
    Half { half: u16, value: u32 },
    /// A record of a lock that a participant holds or is about to take.
    Held { participant: u8, record: u8, exclusive: bool, slot: u8, offset: Bytes },
    /// A record of a lock behind the end of a segment that is said to be long enough for it.
    Beyond { participant: u8, record: u8, exclusive: bool, slot: u8, lines: u16 },
    /// How long a segment is said to be.
    Size { slot: u8, size: Bytes },
    /// Another field of a segment's slot.
    Slot { slot: u8, field: u8, value: u16 },
    /// Which processes are said to have a segment attached.
    Attached { slot: u8, processes: u8 },
    /// The state of a participant's slot.
    Participant { participant: u8, state: u8 },
    /// The state of a process's slot.
    Process { process: u8, state: u8 },
}

/// A number of bytes: near the ends of small segments, or anything.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Bytes {
    Lines(u16),
    Few(u16),
    Any(u64),
}

impl Bytes {
    fn get(self) -> u64 {
        match self {
            Self::Lines(lines) => u64::from(lines) * 64,
            Self::Few(bytes) => bytes.into(),
            Self::Any(bytes) => bytes,
        }
    }
}

/// A control segment to be damaged, and where its parts were before that.
pub(crate) struct Target {
    words: NonNull<AtomicU64>,
    /// Words before the main region, which has no structure.
    len: usize,
    /// Whether a process that uses it lives.
    inhabited: bool,
    lock: usize,
    processes: usize,
    participants: usize,
    segments: usize,
    indexes: usize,
}

const PARTICIPANT: usize = 192 / 8;
const PROCESS: usize = 64 / 8;
const HELD: usize = 64 / 8;
/// Of a namespace of at most 448 processes.
const SEGMENT: usize = 128 / 8;

impl Target {
    /// The machine's control object, if it is long enough to have parts.
    pub(crate) fn new(machine: &HeapMachine, inhabited: bool) -> Option<Self> {
        let (base, length) = machine.control_bytes()?;
        let words = base.cast::<AtomicU64>();
        let len = (length / 8).min(1024);
        let target = Self {
            words,
            len,
            inhabited,
            lock: 0,
            processes: 0,
            participants: 0,
            segments: 0,
            indexes: 0,
        };
        if len < 14 {
            return (len > 0).then_some(target);
        }
        let at = |offset: usize| target.word(offset / 8).load(Relaxed) as usize / 8;
        let (lock, processes, participants) = (at(64), at(72), at(80));
        let (segments, indexes) = (at(88), at(96));
        Some(Self { lock, processes, participants, segments, indexes, ..target })
    }

    fn word(&self, word: usize) -> &AtomicU64 {
        // SAFETY: within the object.
        let at = unsafe { self.words.add(word % self.len) };
        // SAFETY: as above; the machine keeps the object, which starts at a page; atomics.
        unsafe { at.as_ref() }
    }

    fn store(&self, word: usize, value: u64) {
        let word = word % self.len;
        // Who waits for somebody who lives waits for ever. So what a lock says of that stays as it
        // is, when there is somebody to wait: its owner word, its sleepers, its readers.
        let mut kept = 0;
        if self.inhabited && (self.lock..self.lock + 8).contains(&word) {
            kept = if word == self.lock + 1 { 0xffff_ffff } else { u64::MAX };
        }
        let old = self.word(word).load(Relaxed);
        self.word(word).store(old & kept | value & !kept, Relaxed);
    }

    /// The first word of one of `count` parts of `stride` words that start at `first`.
    fn part(first: usize, end: usize, stride: usize, index: u8) -> usize {
        let count = end.saturating_sub(first) / stride;
        first + usize::from(index) % count.max(1) * stride
    }

    fn slot(&self, slot: u8) -> usize {
        Self::part(self.segments, self.indexes, SEGMENT, slot)
    }

    pub(crate) fn apply(&self, patch: Patch) {
        let old = |word: usize| self.word(word).load(Relaxed);
        match patch {
            Patch::Flip { word, bits } => self.store(word.into(), old(word.into()) ^ bits),
            Patch::Small { word, value } => self.store(word.into(), value.into()),
            Patch::Copy { from, to } => self.store(to.into(), old(from.into())),
            Patch::Half { half, value } => {
                let (word, shift) = (usize::from(half >> 1), 32 * u32::from(half & 1));
                let kept = old(word) & !(0xffff_ffff << shift);
                self.store(word, kept | u64::from(value) << shift);
            }
            Patch::Held { participant, record, exclusive, slot, offset } => {
                let slots = Self::part(self.participants, self.segments, PARTICIPANT, participant);
                let mode = if exclusive { 2 } else { 1 };
                let offset = offset.get() & ((1 << 44) - 1);
                let entry = mode << 60 | u64::from(slot % 8) << 44 | offset;
                self.store(slots + HELD + usize::from(record % 16), entry);
            }
            Patch::Beyond { participant, record, exclusive, slot, lines } => {
                let offset = Bytes::Lines(lines);
                self.apply(Patch::Held { participant, record, exclusive, slot, offset });
                let size = Bytes::Any(offset.get() + 4096);
                self.apply(Patch::Size { slot: slot % 8, size });
            }
            Patch::Size { slot, size } => self.store(self.slot(slot) + 2, size.get()),
            Patch::Slot { slot, field, value } => {
                self.store(self.slot(slot) + usize::from(field % 9), value.into());
            }
            Patch::Attached { slot, processes } => {
                self.store(self.slot(slot) + 9, processes.into());
            }
            Patch::Participant { participant, state } => {
                let at = Self::part(self.participants, self.segments, PARTICIPANT, participant);
                self.store(at, old(at) & !0xff | u64::from(state % 5));
            }
            Patch::Process { process, state } => {
                let at = Self::part(self.processes, self.participants, PROCESS, process);
                self.store(at, old(at) & !0xff | u64::from(state % 4));
            }
        }
    }
}
