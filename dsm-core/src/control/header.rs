//! First bytes of a control segment: what it is, how large, and where its parts lie.

use crate::deaths::DeathCount;
use crate::env::ProcessProof;
use crate::error::OutOfRange;
use crate::handle::ObjectId;
use crate::namespace::NamespaceConfig;
use crate::participant::{MAX_HELD, ParticipantSlot};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

use super::process::ProcessSlot;
use super::segment::SegmentRecord;

/// "dsmctrl1", little-endian; stored last, so that whoever sees it sees everything.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"dsmctrl1");
/// Version of the byte layout; see `docs/LAYOUT.md`.
pub(crate) const VERSION: u32 = 2;
/// Revision of what is stored in the layout's fields.
const REVISION: u64 = 2;

/// Root words for embedders.
pub const ROOTS: usize = 16;

/// Set in `flags` if the namespace outlives its last process.
const PERSISTENT: u32 = 1;

/// Most processes a namespace can be created for.
pub(crate) const MOST_PROCESSES: u32 = 4096;
/// Most segments: what the slot bits of a handle can say.
pub(crate) const MOST_SEGMENTS: u32 = 1 << crate::handle::SegmentHandle::SLOT_BITS;
/// Most participants: what a 16-bit index can say.
pub(crate) const MOST_PARTICIPANTS: u32 = 65_535;
/// Most bytes of the main region: page numbers are 32 bits, and offsets of locks 44.
pub(crate) const MOST_MAIN: u64 = (1 << 43) - PAGE as u64;
// What is packed elsewhere has room for them.
const _: () = {
    assert!(MOST_PARTICIPANTS <= u16::MAX as u32);
    assert!(MOST_SEGMENTS <= crate::handle::LockAddress::CONTROL);
};
/// Fewest: the elector, a process, and a thread.
pub(crate) const FEWEST_PARTICIPANTS: u32 = 3;

/// Bytes of a page of the main region, whatever the platform's.
pub(crate) const PAGE: usize = 4096;

/// The header; written once before `magic`, except for the marked fields.
#[repr(C, align(64))]
pub(crate) struct Header {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU32,
    pub(crate) flags: AtomicU32,
    pub(crate) fingerprint: AtomicU64,
    pub(crate) total_size: AtomicU64,
    /// Identity of the object it was made in: a copy has another.
    pub(crate) device: AtomicU64,
    pub(crate) object: AtomicU64,
    pub(crate) max_processes: AtomicU32,
    pub(crate) max_participants: AtomicU32,
    pub(crate) max_segments: AtomicU32,
    pub(crate) _reserved: AtomicU32,

    /// Where the parts lie, in bytes from the start.
    pub(crate) lock_at: AtomicU64,
    pub(crate) processes_at: AtomicU64,
    pub(crate) participants_at: AtomicU64,
    pub(crate) segments_at: AtomicU64,
    pub(crate) indexes_at: AtomicU64,
    pub(crate) main_at: AtomicU64,
    pub(crate) main_len: AtomicU64,
    /// Moves with every death. In a line of its own but for what never changes: everybody looks at
    /// it in every call.
    pub(crate) deaths: DeathCount,

    /// Who acts as participant 0: written by the holder of the election before it bumps that
    /// participant's generation.
    pub(crate) elector: ProofWords,
    /// Process slot whose token of life the elector holds. Written like `elector`.
    pub(crate) elector_slot: AtomicU64,

    /// Hints, under the control lock: no free segment slot, no free page of the main region,
    /// lies before these.
    pub(crate) slot_hint: AtomicU32,
    pub(crate) page_hint: AtomicU32,
    /// Moves whenever a process has joined; who watches processes sleeps on it.
    pub(crate) joined: AtomicU32,
    pub(crate) _reserved_more: [AtomicU32; 3],

    /// Words of the embedder, zero at creation.
    pub(crate) roots: [AtomicU64; ROOTS],
}

/// A [`ProcessProof`] in shared memory.
#[repr(C)]
pub(crate) struct ProofWords {
    pid: AtomicU64,
    start_time: AtomicU64,
    pid_namespace: AtomicU64,
    user: AtomicU64,
}

impl ProofWords {
    pub(crate) fn new() -> Self {
        Self {
            pid: AtomicU64::new(0),
            start_time: AtomicU64::new(0),
            pid_namespace: AtomicU64::new(0),
            user: AtomicU64::new(0),
        }
    }

    pub(crate) fn store(&self, proof: &ProcessProof) {
        self.pid.store(proof.pid, Ordering::Relaxed);
        self.start_time.store(proof.start_time, Ordering::Relaxed);
        self.pid_namespace.store(proof.pid_namespace, Ordering::Relaxed);
        self.user.store(proof.user, Ordering::Relaxed);
    }

    /// Not atomic as a whole: the reader compares a generation before and after.
    pub(crate) fn load(&self) -> ProcessProof {
        ProcessProof {
            pid: self.pid.load(Ordering::Acquire),
            start_time: self.start_time.load(Ordering::Acquire),
            pid_namespace: self.pid_namespace.load(Ordering::Acquire),
            user: self.user.load(Ordering::Acquire),
        }
    }
}

/// Where the parts of a control segment lie: a function of four numbers, so that a stored offset
/// is checked by computing it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub(crate) max_processes: u32,
    pub(crate) max_participants: u32,
    pub(crate) max_segments: u32,
    pub(crate) lock_at: usize,
    pub(crate) processes_at: usize,
    pub(crate) participants_at: usize,
    pub(crate) segments_at: usize,
    pub(crate) segment_stride: usize,
    pub(crate) indexes_at: usize,
    pub(crate) main_at: usize,
    pub(crate) main_len: usize,
    pub(crate) total: usize,
}

impl Layout {
    /// Computes the layout; says which number is out of its range otherwise.
    pub(crate) fn compute(
        max_processes: u32,
        max_participants: u32,
        max_segments: u32,
        main_len: u64,
    ) -> Result<Self, OutOfRange> {
        let check = |option, value: u32, least: u32, most: u32| {
            OutOfRange::check(option, value.into(), least.into(), most.into())
        };
        check("max_processes", max_processes, 1, MOST_PROCESSES)?;
        let (fewest, most) = (FEWEST_PARTICIPANTS, MOST_PARTICIPANTS);
        check("max_participants", max_participants, fewest, most)?;
        check("max_segments", max_segments, 1, MOST_SEGMENTS)?;
        OutOfRange::check_multiple("main_region", main_len, 0, MOST_MAIN, PAGE as u64)?;
        let main_region = |most: usize| OutOfRange {
            option: "main_region",
            value: main_len,
            least: 0,
            most: most as u64 / PAGE as u64 * PAGE as u64,
            multiple: 1,
        };
        let main_len = usize::try_from(main_len).map_err(|_| main_region(0))?;
        let lock_at = size_of::<Header>().next_multiple_of(64);
        let processes_at = lock_at + super::lock_size(max_participants);
        let participants_at = processes_at + max_processes as usize * size_of::<ProcessSlot>();
        let segments_at =
            participants_at + max_participants as usize * size_of::<ParticipantSlot>();
        let segment_stride = SegmentRecord::stride(max_processes);
        let indexes_at = segments_at + max_segments as usize * segment_stride;
        let words = Self::words(max_segments as usize) + Self::words(main_len / PAGE);
        let main_at = (indexes_at + words * size_of::<AtomicU64>()).next_multiple_of(PAGE);
        // Where addresses are short, a main region that has one may leave none for the rest.
        let room = (isize::MAX as usize).saturating_sub(main_at);
        if main_len > room {
            return Err(main_region(room));
        }
        let total = main_at + main_len;
        Ok(Self {
            max_processes,
            max_participants,
            max_segments,
            lock_at,
            processes_at,
            participants_at,
            segments_at,
            segment_stride,
            indexes_at,
            main_at,
            main_len,
            total,
        })
    }

    /// The layout that a new namespace of this configuration has.
    pub(crate) fn of(config: &NamespaceConfig) -> Result<Self, OutOfRange> {
        let main = config.main_region as u64;
        // What was given, not what it is rounded up to.
        OutOfRange::check("main_region", main, 0, MOST_MAIN)?;
        Self::compute(
            config.max_processes,
            config.max_participants,
            config.max_segments,
            main.next_multiple_of(PAGE as u64),
        )
    }

    /// Words of a bitmap of so many bits.
    pub(crate) const fn words(bits: usize) -> usize {
        bits.div_ceil(64)
    }
}

/// What two builds must agree on beside the version, a byte each: pointer width, endianness,
/// sizes of header and slots in units of 8 bytes, locks a participant can hold, revision.
pub(crate) fn fingerprint() -> u64 {
    const {
        let fields = [
            size_of::<usize>() as u64,
            if cfg!(target_endian = "little") { 1 } else { 2 },
            size_of::<Header>() as u64 / 8,
            size_of::<ProcessSlot>() as u64 / 8,
            size_of::<ParticipantSlot>() as u64 / 8,
            size_of::<SegmentRecord>() as u64 / 8,
            MAX_HELD as u64,
            REVISION,
        ];
        let mut word = 0;
        let mut at = 0;
        while at < fields.len() {
            assert!(fields[at] <= 0xff);
            word |= fields[at] << (8 * at);
            at += 1;
        }
        word
    }
}

impl Header {
    /// A header with everything but the magic.
    pub(crate) fn new(layout: &Layout, persistent: bool, id: ObjectId) -> Self {
        let offset = |at: usize| AtomicU64::new(at as u64);
        Self {
            magic: AtomicU64::new(0),
            version: AtomicU32::new(VERSION),
            flags: AtomicU32::new(if persistent { PERSISTENT } else { 0 }),
            fingerprint: AtomicU64::new(fingerprint()),
            total_size: offset(layout.total),
            device: AtomicU64::new(id.device),
            object: AtomicU64::new(id.object),
            max_processes: AtomicU32::new(layout.max_processes),
            max_participants: AtomicU32::new(layout.max_participants),
            max_segments: AtomicU32::new(layout.max_segments),
            _reserved: AtomicU32::new(0),
            lock_at: offset(layout.lock_at),
            processes_at: offset(layout.processes_at),
            participants_at: offset(layout.participants_at),
            segments_at: offset(layout.segments_at),
            indexes_at: offset(layout.indexes_at),
            main_at: offset(layout.main_at),
            main_len: offset(layout.main_len),
            deaths: DeathCount::new(),
            elector: ProofWords::new(),
            elector_slot: AtomicU64::new(0),
            slot_hint: AtomicU32::new(0),
            page_hint: AtomicU32::new(0),
            joined: AtomicU32::new(0),
            _reserved_more: core::array::from_fn(|_| AtomicU32::new(0)),
            roots: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Whether the namespace outlives its last process.
    pub(crate) fn is_persistent(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & PERSISTENT != 0
    }

    pub(crate) fn set_persistent(&self, persistent: bool) {
        if persistent {
            self.flags.fetch_or(PERSISTENT, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!PERSISTENT, Ordering::Relaxed);
        }
    }

    /// Identity of the object the header was made in.
    pub(crate) fn id(&self) -> ObjectId {
        ObjectId {
            device: self.device.load(Ordering::Relaxed),
            object: self.object.load(Ordering::Relaxed),
        }
    }
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Header>() == 320);
    assert!(core::mem::offset_of!(Header, lock_at) == 64);
    assert!(core::mem::offset_of!(Header, deaths) == 120);
    assert!(core::mem::offset_of!(Header, elector) == 128);
    assert!(core::mem::offset_of!(Header, slot_hint) == 168);
    assert!(core::mem::offset_of!(Header, joined) == 176);
    assert!(core::mem::offset_of!(Header, roots) == 192);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_control_segment_is_within_the_bounds_of_what_is_packed() {
        let main = (1_u64 << 43) - PAGE as u64;
        let most = (MOST_PROCESSES, MOST_PARTICIPANTS, MOST_SEGMENTS);
        #[cfg(target_pointer_width = "64")]
        {
            let layout = Layout::compute(most.0, most.1, most.2, main).unwrap();
            assert!((layout.total as u64) < 1 << crate::handle::LockAddress::OFFSET_BITS);
            assert!(layout.main_len / PAGE < u32::MAX as usize);
        }
        for (processes, participants, segments, main) in [
            (most.0 + 1, most.1, most.2, main),
            (most.0, most.1 + 1, most.2, main),
            (most.0, most.1, most.2 + 1, main),
            (most.0, most.1, most.2, main + PAGE as u64),
            (u32::MAX, u32::MAX, u32::MAX, u64::MAX),
        ] {
            assert!(Layout::compute(processes, participants, segments, main).is_err());
        }
    }
}
