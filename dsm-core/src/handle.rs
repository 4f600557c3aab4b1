//! Names of things in shared memory: segment handles, object identities, participant ids.

use core::fmt;
use core::num::NonZeroU64;

/// Names a segment in its namespace: 64 bits, never zero.
///
/// Bit 0 tells a segment of the preallocated main region (1) from an object of the operating
/// system (0); bits 1 to 12 are its slot in the control segment, which makes a lookup one compare;
/// the other 51 bits are random, so that a stale handle does not name its slot's next tenant.
#[doc(alias = "dsm_handle")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct SegmentHandle(NonZeroU64);

impl SegmentHandle {
    /// Bits of a handle that hold the slot index.
    pub const SLOT_BITS: u32 = 12;

    /// Composes a handle; `random` must have a bit set above bit 12, or `None` is returned.
    #[must_use]
    pub const fn compose(random: u64, slot: u32, main_region: bool) -> Option<Self> {
        let random = random & !((1 << (Self::SLOT_BITS + 1)) - 1);
        if random == 0 || slot >= 1 << Self::SLOT_BITS {
            return None;
        }
        Self::from_raw(random | (slot as u64) << 1 | main_region as u64)
    }

    /// The handle with these bits; `None` for zero.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match NonZeroU64::new(raw) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// The bits of the handle, for storing it in shared memory.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// Index of the segment's slot in the control segment.
    #[must_use]
    pub const fn slot(self) -> u32 {
        (self.get() >> 1) as u32 & ((1 << Self::SLOT_BITS) - 1)
    }

    /// Whether the segment lies in the namespace's preallocated main region.
    #[must_use]
    pub const fn is_main_region(self) -> bool {
        self.get() & 1 == 1
    }
}

impl fmt::Debug for SegmentHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentHandle({:016x})", self.get())
    }
}

impl fmt::Display for SegmentHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.get())
    }
}

/// A participant (a thread attached to a namespace) at one time of its slot.
///
/// Wherever shared memory records an owner it records this pair: the slot is reused, the
/// generation is not, so a stale owner is told from its slot's present tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ParticipantId {
    /// Index of the participant slot: small and dense.
    pub index: u16,
    /// How often the slot had been given out before; never zero for a registered participant.
    pub generation: u32,
}

impl ParticipantId {
    /// Packs the pair into 48 bits: generation above a 16-bit index. Never zero when registered.
    #[inline]
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.generation as u64) << 16 | self.index as u64
    }

    /// Reverses [`pack`](Self::pack); `None` for a word that names nobody (generation zero).
    #[inline]
    #[must_use]
    pub const fn unpack(word: u64) -> Option<Self> {
        let generation = (word >> 16) as u32;
        if generation == 0 { None } else { Some(Self { index: word as u16, generation }) }
    }
}

/// What the operating system says an object *is*, whatever its name: device and inode on POSIX.
///
/// All zero where the platform has no such identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct ObjectId {
    /// Device, or volume.
    pub device: u64,
    /// Inode, file index, or System V id.
    pub object: u64,
}

/// Where a lock lies, independent of any mapping: segment slot and offset.
///
/// A participant's list of held locks consists of these, so that whoever sweeps it after its
/// death can find the locks in a mapping of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockAddress(u64);

impl LockAddress {
    /// The slot value that means the control segment itself.
    pub const CONTROL: u32 = 0xffff;
    pub(crate) const OFFSET_BITS: u32 = 44;

    /// The lock at `offset` bytes into the segment in `slot`.
    #[inline]
    #[must_use]
    pub const fn new(slot: u32, offset: u64) -> Self {
        debug_assert!(slot <= Self::CONTROL && offset >> Self::OFFSET_BITS == 0);
        Self((slot as u64) << Self::OFFSET_BITS | offset)
    }

    /// The bits, below bit 60.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Reverses [`get`](Self::get).
    #[inline]
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The segment slot.
    #[must_use]
    pub const fn slot(self) -> u32 {
        (self.0 >> Self::OFFSET_BITS) as u32
    }

    /// Bytes from the start of the segment.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 & ((1 << Self::OFFSET_BITS) - 1)
    }
}
