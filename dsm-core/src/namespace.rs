//! A namespace, as one process sees it.

use core::time::Duration;

use crate::env::Environment;
use crate::error::ProviderFailure;
use crate::handle::{LockAddress, ParticipantId, SegmentHandle};
use crate::participant::{Participant, ParticipantLocal, Peers};
use crate::provider::{ErasedProvider, Root};
use crate::segment::{Blank, Segment};
use crate::sync::AtomicU64;

/// The platform a namespace lives on, both halves erased.
#[derive(Clone, Copy)]
pub struct Platform<'a> {
    /// Memory.
    pub provider: &'a dyn ErasedProvider,
    /// Waits, liveness, time, entropy.
    pub env: &'a dyn Environment,
}

/// What a namespace is created with; ignored (but for checks) when it exists already.
#[derive(Clone, Debug)]
pub struct NamespaceConfig {
    /// Processes that can be attached at once.
    pub max_processes: u32,
    /// Participants (threads) that can be attached at once; up to 384 a lock is one cache line.
    pub max_participants: u32,
    /// Segments that can exist at once; at most 4096.
    pub max_segments: u32,
    /// Bytes of the preallocated main region, 0 for none.
    #[doc(alias = "min_dynamic_shared_memory")]
    pub main_region: usize,
    /// Whether it outlives the last process that leaves.
    pub persistent: bool,
    /// How long `open` waits for another process that is opening or leaving.
    pub patience: Duration,
}

impl Default for NamespaceConfig {
    fn default() -> Self {
        Self {
            max_processes: 128,
            max_participants: 384,
            max_segments: 1024,
            main_region: 0,
            persistent: false,
            patience: Duration::from_secs(10),
        }
    }
}

/// Why a namespace could not be opened or an operation on it failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The platform refused.
    Provider(ProviderFailure),
    /// The control object is not one of ours (magic).
    Foreign,
    /// It is of another layout version: (its, ours).
    Version(u32, u32),
    /// Same version, other pointer width, endianness or slot sizes: (its, ours).
    Fingerprint(u64, u64),
    /// It is shorter than its header says: (bytes there, bytes needed).
    Truncated(u64, u64),
    /// A field is out of its range; names the field.
    Corrupt(&'static str),
    /// It is a copy: its recorded identity is not the object's.
    Copied,
    /// All process slots are taken; raise `max_processes`.
    TooManyProcesses(u32),
    /// All participant slots are taken; raise `max_participants`.
    TooManyParticipants(u32),
    /// All segment slots are taken; raise `max_segments`.
    TooManySegments(u32),
    /// The local table is too short for the namespace: (has, needs).
    LocalTooSmall(u32, u32),
    /// The segment is pinned already, or not pinned.
    Pinned(bool),
    /// A size of zero or beyond what can be mapped.
    InvalidSize(u64),
    /// A lock of the control segment.
    Lock(crate::lock::LockError),
    /// The process has forked since it opened the namespace; open it anew in the child.
    Forked,
    /// The entropy source gave nothing usable.
    Entropy,
}

/// What `open` found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opened {
    /// A fresh namespace.
    Created,
    /// An existing one with living processes.
    Joined,
    /// A persistent one with no living process in it.
    Resumed,
    /// What a crash of all its processes left was removed first.
    Recreated,
}

/// Process-local memory of a namespace, supplied by the caller (no `alloc` here).
pub struct ProcessLocal<'a> {
    _m: core::marker::PhantomData<&'a ()>,
}

/// One process's view of a namespace. `Send + Sync`: shared by its threads.
pub struct Namespace<'a> {
    platform: Platform<'a>,
}

#[expect(unused_variables, reason = "bodies follow")]
impl<'a> Namespace<'a> {
    /// Joins the namespace behind `root`, creating it if there is none; reaps the dead.
    pub fn open<R: Root>(
        root: &R,
        platform: Platform<'a>,
        config: &NamespaceConfig,
        local: &'a ProcessLocal<'a>,
    ) -> Result<(Self, Opened), Error> {
        todo!()
    }

    /// Leaves; the last to leave removes everything unless persistent.
    pub fn leave<R: Root>(self, root: &R) -> Result<(), Error> {
        todo!()
    }

    /// Registers the calling thread.
    pub fn register(&self, local: &ParticipantLocal) -> Result<ParticipantId, Error> {
        todo!()
    }

    /// Unregisters; refused (the slot stays taken until process death) while it holds locks.
    pub fn unregister(&self, local: &ParticipantLocal) -> bool {
        todo!()
    }

    /// A participant value for a registered local.
    pub fn participant<'p>(&'p self, local: &'p ParticipantLocal) -> Participant<'p> {
        Participant::new(self, local)
    }

    /// Creates a segment, `reserved` of its `size` bytes backed by memory now.
    #[doc(alias = "dsm_create")]
    pub fn create_segment(&self, size: usize, reserved: usize) -> Result<Segment<'_>, Error> {
        todo!()
    }

    /// Attaches; `None` if there is no such segment (any more).
    #[doc(alias = "dsm_attach")]
    pub fn attach_segment(&self, handle: SegmentHandle) -> Result<Option<Segment<'_>>, Error> {
        todo!()
    }

    /// A second handle to a mapping of this process; `None` if not mapped.
    #[doc(alias = "dsm_find_mapping")]
    pub fn find_mapping(&self, handle: SegmentHandle) -> Option<Segment<'_>> {
        todo!()
    }

    /// Keeps the segment after its last detach.
    #[doc(alias = "dsm_pin_segment")]
    pub fn pin_segment(&self, handle: SegmentHandle) -> Result<(), Error> {
        todo!()
    }

    /// Undoes `pin_segment`, by handle, attached or not; may destroy the segment.
    #[doc(alias = "dsm_unpin_segment")]
    pub fn unpin_segment(&self, handle: SegmentHandle) -> Result<(), Error> {
        todo!()
    }

    /// Pins the segment for as long as the segment `parent` exists: it survives its own last
    /// detach, and goes together with `parent`, however that one ends (last detach, unpin,
    /// reaping of the dead). `unpin_segment` ends it sooner. The segments that an area grows by
    /// are kept under its first one, so that they can neither go early nor leak.
    ///
    /// # Errors
    ///
    /// [`Error::Pinned`] if it is pinned already; a parent that is gone is
    /// [`ErrorKind::NotFound`](crate::error::ErrorKind::NotFound).
    pub fn pin_segment_under(
        &self,
        handle: SegmentHandle,
        parent: SegmentHandle,
    ) -> Result<(), Error> {
        todo!()
    }

    /// How many processes have the segment attached; `None` if there is no such segment.
    pub fn attached_processes(&self, handle: SegmentHandle) -> Option<u32> {
        todo!()
    }

    /// Gives back the address range that [`Segment::detach_to_blank`] left behind.
    ///
    /// # Safety
    ///
    /// Nothing may read the range any more.
    pub unsafe fn release_blank(&self, blank: Blank) {
        todo!()
    }

    /// Sweeps what dead processes and threads left; returns how many participants were freed.
    pub fn reap(&self) -> Result<u32, Error> {
        todo!()
    }

    /// Words for embedders' root pointers (handles of areas, tables); zero at creation.
    pub fn root(&self, index: usize) -> &AtomicU64 {
        todo!()
    }

    /// The platform.
    pub fn platform(&self) -> Platform<'a> {
        self.platform
    }
}

#[expect(unused_variables, reason = "bodies follow")]
impl Peers for Namespace<'_> {
    fn is_dead(&self, who: ParticipantId) -> bool {
        todo!()
    }
    fn evict_reader(&self, me: &Participant<'_>, index: u16, word: &AtomicU64, bit: u64) -> bool {
        todo!()
    }
    fn max_participants(&self) -> u32 {
        todo!()
    }
    fn env(&self) -> &dyn Environment {
        self.platform.env
    }
}

/// Keeps imports used until bodies follow.
pub type AddressOf = LockAddress;
