//! Segment slots: which segments exist, and which processes have them attached.
//!
//! `word` is the truth: state, pinned, generation. All of it changes under the control lock, one
//! store at a time:
//!
//! ```text
//! FREE --> CREATING --> LIVE --> MORIBUND --> FREE
//!   \______________________^ (main region: no object to create)
//! ```
//!
//! - CREATING: `handle` and `creator` were written before; an object of that name may exist. Left
//!   behind by a dead creator: the object is destroyed by name.
//! - LIVE: `size` and identity were written before, and the creator's bit is set.
//! - MORIBUND: no bit, no pin. Not attachable; whoever gets there first removes the object, which
//!   is idempotent, and frees the slot.
//!
//! A LIVE slot without a bit or a pin exists only if somebody died between two stores: it counts
//! as MORIBUND. Slots of the main region go from FREE to LIVE and back, as their memory is
//! nobody's object.
//!
//! A pin may depend on another segment, named in `parent`: it counts only while that one is LIVE.
//! Whoever retires a slot that is marked as a parent unpins its children in the same hold of the
//! lock; a kill in between leaves children of a segment that is gone, which the sweep unpins.
//!
//! `reserved` only rises, by `fetch_max`, without the lock.

use super::header::Layout;
use crate::handle::{ObjectId, SegmentHandle};
use crate::sync::{AtomicU64, Ordering};

/// State of a segment slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Free,
    Creating,
    Live,
    Moribund,
}

/// The truth of a slot, unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Word {
    pub(crate) state: State,
    pub(crate) pinned: bool,
    /// Whether other segments may be pinned under it.
    pub(crate) parent: bool,
    pub(crate) generation: u32,
}

impl Word {
    const PINNED: u64 = 1 << 8;
    const PARENT: u64 = 1 << 9;

    /// A slot of this generation in this state, without a pin.
    pub(crate) fn new(state: State, generation: u32) -> Self {
        Self { state, pinned: false, parent: false, generation }
    }

    pub(crate) fn pack(self) -> u64 {
        let pinned = if self.pinned { Self::PINNED } else { 0 };
        let parent = if self.parent { Self::PARENT } else { 0 };
        (self.generation as u64) << 32 | parent | pinned | self.state as u64
    }

    /// `None` for bits that no slot ever has.
    pub(crate) fn unpack(word: u64) -> Option<Self> {
        let state = match word & 0xff {
            0 => State::Free,
            1 => State::Creating,
            2 => State::Live,
            3 => State::Moribund,
            _ => return None,
        };
        Some(Self {
            state,
            pinned: word & Self::PINNED != 0,
            parent: word & Self::PARENT != 0,
            generation: (word >> 32) as u32,
        })
    }
}

/// The fixed part of a slot; a bitmap of attached processes follows it.
#[repr(C)]
pub(crate) struct SegmentRecord {
    pub(crate) word: AtomicU64,
    pub(crate) handle: AtomicU64,
    pub(crate) size: AtomicU64,
    /// Bytes from the start that are backed by memory, as far as anyone has asked.
    pub(crate) reserved: AtomicU64,
    pub(crate) device: AtomicU64,
    pub(crate) object: AtomicU64,
    /// Who creates it: process slot below, its generation above.
    pub(crate) creator: AtomicU64,
    /// First page in the main region.
    pub(crate) page: AtomicU64,
    /// Handle of the segment that this one's pin depends on; 0 for none.
    pub(crate) parent: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<SegmentRecord>() == 72);

impl SegmentRecord {
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            handle: AtomicU64::new(0),
            size: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            device: AtomicU64::new(0),
            object: AtomicU64::new(0),
            creator: AtomicU64::new(0),
            page: AtomicU64::new(0),
            parent: AtomicU64::new(0),
        }
    }

    /// Bytes from one slot to the next.
    pub(crate) fn stride(max_processes: u32) -> usize {
        let bits = Layout::words(max_processes as usize) * size_of::<AtomicU64>();
        (size_of::<Self>() + bits).next_multiple_of(64)
    }
}

/// One segment slot of a mapped control segment.
#[derive(Clone, Copy)]
pub(crate) struct SegmentSlot<'a> {
    pub(crate) index: u32,
    pub(crate) record: &'a SegmentRecord,
    pub(crate) attached: &'a [AtomicU64],
}

impl SegmentSlot<'_> {
    /// The truth; bits that no slot ever has count as FREE and are never given out again, see
    /// [`is_sane`](Self::is_sane).
    pub(crate) fn word(&self) -> Word {
        let raw = self.record.word.load(Ordering::Acquire);
        Word::unpack(raw).unwrap_or(Word::new(State::Free, 0))
    }

    pub(crate) fn is_sane(&self) -> bool {
        Word::unpack(self.record.word.load(Ordering::Acquire)).is_some()
    }

    pub(crate) fn set(&self, word: Word) {
        self.record.word.store(word.pack(), Ordering::Release);
    }

    /// The handle, if it names this slot.
    pub(crate) fn handle(&self) -> Option<SegmentHandle> {
        SegmentHandle::from_raw(self.record.handle.load(Ordering::Acquire))
            .filter(|handle| handle.slot() == self.index)
    }

    /// Names the slot's tenant. Released, as the identity is: who reads them without the lock and
    /// finds the state word unchanged after that has not read a later tenant's.
    pub(crate) fn set_handle(&self, handle: SegmentHandle) {
        self.record.handle.store(handle.get(), Ordering::Release);
    }

    pub(crate) fn id(&self) -> ObjectId {
        ObjectId {
            device: self.record.device.load(Ordering::Acquire),
            object: self.record.object.load(Ordering::Acquire),
        }
    }

    pub(crate) fn set_id(&self, id: ObjectId) {
        self.record.device.store(id.device, Ordering::Release);
        self.record.object.store(id.object, Ordering::Release);
    }

    /// Its size in bytes; 0 if the record is damaged and says more than there are addresses.
    pub(crate) fn size(&self) -> usize {
        usize::try_from(self.record.size.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Whether any process has it attached.
    pub(crate) fn is_attached(&self) -> bool {
        self.attached.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    pub(crate) fn is_attached_by(&self, process: u32) -> bool {
        self.attached[process as usize / 64].load(Ordering::Relaxed) & 1 << (process % 64) != 0
    }

    /// Sets or clears a process's bit; under the control lock.
    pub(crate) fn set_attached(&self, process: u32, set: bool) {
        let word = &self.attached[process as usize / 64];
        let bit = 1 << (process % 64);
        let old = word.load(Ordering::Relaxed);
        word.store(if set { old | bit } else { old & !bit }, Ordering::Release);
    }

    pub(crate) fn clear_attached(&self) {
        self.attached.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}
