//! A look at a namespace from outside: for tools.
//!
//! An [`Inspector`] reads a control segment that [`Root::peek`](crate::provider::Root::peek) has
//! mapped for reading. It takes no slot, no lock and no token of life, sweeps nothing, and leaves
//! no trace: what it sees may change while it looks, and each answer is true of some moment
//! only. Whether a process or thread is dead is asked of the environment, and kept to itself.

use core::ptr::NonNull;
use core::sync::atomic::Ordering::{Acquire, Relaxed};

use crate::control::segment::State;
use crate::control::{Control, ELECTOR, Found, participant_state, process, validate};
use crate::env::{Environment, ProcessProof, ThreadProof};
use crate::handle::{LockAddress, ObjectId, ParticipantId, SegmentHandle};
use crate::lock::HeldMode;
use crate::namespace::Error;
use crate::participant::MAX_HELD;
use crate::provider::Mapping;

/// A process in a namespace.
#[derive(Clone, Copy, Debug)]
pub struct ProcessInfo {
    /// Its slot.
    pub slot: u32,
    /// Who it is.
    pub proof: ProcessProof,
    /// Whether it is proven dead, and merely not swept yet.
    pub dead: bool,
}

/// A participant: a thread of a process, or the process as such.
#[derive(Clone, Copy, Debug)]
pub struct ParticipantInfo {
    /// Slot and generation.
    pub id: ParticipantId,
    /// Slot of its process.
    pub process: u32,
    /// Which thread; all zero for the process as such.
    pub thread: ThreadProof,
    /// Whether it is proven dead, and merely not swept yet.
    pub dead: bool,
    /// What it waits for, in terms of the crate that set it; 0 for nothing.
    pub waits_for: u64,
    /// Locks that it holds, or is about to.
    pub held: [Option<(LockAddress, HeldMode)>; MAX_HELD],
}

/// A segment of a namespace.
#[derive(Clone, Copy, Debug)]
pub struct SegmentInfo {
    /// Its handle.
    pub handle: SegmentHandle,
    /// Identity of its object; all zero in the main region.
    pub id: ObjectId,
    /// Bytes.
    pub size: u64,
    /// Bytes backed by memory.
    pub reserved: u64,
    /// Whether it survives its last detach.
    pub pinned: bool,
    /// Whether it is neither being created nor being removed.
    pub settled: bool,
    /// The segment whose end is its end too, as an area's first one is for the others.
    pub under: Option<SegmentHandle>,
    /// Processes that have it attached, dead ones that are not swept yet included.
    pub attached: u32,
}

/// Limits and sizes of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamespaceInfo {
    /// Process slots.
    pub max_processes: u32,
    /// Participant slots.
    pub max_participants: u32,
    /// Segment slots.
    pub max_segments: u32,
    /// Bytes of the main region.
    pub main_region: u64,
    /// Bytes of the control object, main region included.
    pub size: u64,
    /// Whether it outlives its last process.
    pub persistent: bool,
}

/// A namespace seen from outside; see the module's essay.
#[derive(Clone, Copy)]
pub struct Inspector<'a> {
    control: Control<'a>,
}

impl<'a> Inspector<'a> {
    /// Looks at a mapped control object. `None` if its creator has not finished it.
    ///
    /// # Errors
    ///
    /// What [`Namespace::open`](crate::namespace::Namespace::open) says of an object that is not
    /// what it should be.
    ///
    /// # Safety
    ///
    /// `mapping` must be valid for reads, for `'a`; it needs not be writable.
    pub unsafe fn new(mapping: &Mapping, env: &'a dyn Environment) -> Result<Option<Self>, Error> {
        // SAFETY: the caller's promise. The identity is unknown here: a copy shows what it copies.
        match unsafe { validate(mapping, ObjectId::default(), env) }? {
            Found::Valid(control) => Ok(Some(Self { control })),
            Found::Unpublished => Ok(None),
        }
    }

    /// Limits and sizes.
    #[must_use]
    pub fn info(&self) -> NamespaceInfo {
        let layout = &self.control.layout;
        NamespaceInfo {
            max_processes: layout.max_processes,
            max_participants: layout.max_participants,
            max_segments: layout.max_segments,
            main_region: layout.main_len as u64,
            size: layout.total as u64,
            persistent: self.control.header.is_persistent(),
        }
    }

    /// The embedder's root word of that index; 0 beyond the last.
    #[must_use]
    pub fn root(&self, index: usize) -> u64 {
        self.control.header.roots.get(index).map_or(0, |root| root.load(Acquire))
    }

    /// Its processes.
    pub fn processes(&self) -> impl Iterator<Item = ProcessInfo> + use<'a> {
        let control = self.control;
        (0..).zip(control.processes).filter_map(move |(slot, process)| {
            let (generation, state) = process.get();
            (state != process::FREE).then(|| ProcessInfo {
                slot,
                proof: process.proof.load(),
                dead: control.process_is_dead(slot, generation),
            })
        })
    }

    /// Its participants, but for the one that stands for the holder of the election.
    pub fn participants(&self) -> impl Iterator<Item = ParticipantInfo> + use<'a> {
        let control = self.control;
        let slots = (0..).zip(control.participants).skip(ELECTOR as usize + 1);
        slots.filter_map(move |(index, slot)| {
            let (generation, state) = process::unpack(slot.state.load(Acquire));
            if state == participant_state::FREE {
                return None;
            }
            let id = ParticipantId { index, generation };
            let mut held = [None; MAX_HELD];
            held.iter_mut().zip(slot.held()).for_each(|(to, lock)| *to = Some(lock));
            Some(ParticipantInfo {
                id,
                process: Control::process_of(slot).0,
                thread: ThreadProof {
                    tid: slot.tid.load(Relaxed),
                    start_time: slot.thread_start.load(Relaxed),
                },
                dead: control.looks_dead(id),
                waits_for: slot.waits_for.load(Relaxed),
                held,
            })
        })
    }

    /// Its segments.
    pub fn segments(&self) -> impl Iterator<Item = SegmentInfo> + use<'a> {
        self.control.segments().filter_map(|slot| {
            let word = slot.word();
            if word.state == State::Free {
                return None;
            }
            Some(SegmentInfo {
                handle: slot.handle()?,
                id: slot.id(),
                size: slot.size() as u64,
                reserved: slot.record.reserved.load(Relaxed),
                pinned: word.pinned,
                settled: word.state == State::Live,
                under: SegmentHandle::from_raw(slot.record.parent.load(Relaxed)),
                attached: slot.attached.iter().map(|w| w.load(Relaxed).count_ones()).sum(),
            })
        })
    }

    /// Where a segment of the main region lies in the mapping; `None` for one that is an object of
    /// its own, or is gone.
    #[must_use]
    pub fn in_main_region(&self, handle: SegmentHandle) -> Option<(NonNull<u8>, usize)> {
        let slot = self.control.segment(handle.slot())?;
        if !handle.is_main_region() || slot.handle() != Some(handle) {
            return None;
        }
        let size = slot.size();
        let (page, _) = self.control.pages_for(&slot, size)?;
        Some((self.control.page_address(page), size))
    }
}
