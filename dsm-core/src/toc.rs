//! A table of contents at the start of a segment: for programs that lay out a raw segment and let
//! others find its parts by key.
//!
//! # Layout
//!
//! ```text
//! byte 0   magic      u64   the embedder's; stored last
//!      8   total      u64   bytes of the whole area, a multiple of 64
//!      16  state      u64   entries given out in the lower 24 bits, above them the chunks of
//!                           64 bytes given out at the end
//!      24  latest     u64   number (from 1) of the entry published last, 0 for none
//!      32  entries    {key u64, place u64} each; place is offset << 24 | number of the entry
//!                     published before
//!      ..  free
//!      ..  chunks     from the end downwards
//! ```
//!
//! # Rules
//!
//! `state` and `latest` are the truth, changed by compare-and-swap alone, so that there is no lock
//! and nothing to recover: who is killed after taking a chunk or an entry leaves it unused. An
//! entry is written in full, into bytes whose earlier contents mean nothing, before `latest`
//! publishes it; it never changes after that, and look-ups follow the published ones only.
//! Nothing is ever given back. (PostgreSQL's shm_toc does the same under a spin lock.)

use core::ptr::NonNull;

use crate::sync::{AtomicU64, Ordering};

/// Alignment of everything that is given out, and the unit sizes are rounded up to: a cache line,
/// so that a lock can lie in it.
pub const ALIGNMENT: usize = 64;

const ENTRY_BITS: u32 = 24;
const OFFSET_BITS: u32 = 40;
const MOST_ENTRIES: u64 = (1 << ENTRY_BITS) - 1;

#[repr(C, align(32))]
struct Header {
    magic: AtomicU64,
    total: AtomicU64,
    state: AtomicU64,
    latest: AtomicU64,
}

#[repr(C)]
struct Entry {
    key: AtomicU64,
    place: AtomicU64,
}

/// A table of contents in mapped memory. Cheap to copy; every process attaches its own.
#[doc(alias = "shm_toc")]
#[derive(Clone, Copy, Debug)]
pub struct Toc {
    base: NonNull<u8>,
    total: usize,
}

// SAFETY: the table consists of atomics in shared memory.
unsafe impl Send for Toc {}
// SAFETY: as above.
unsafe impl Sync for Toc {}

/// What a table has given out.
#[derive(Clone, Copy)]
struct State {
    entries: u64,
    chunks: u64,
}

impl State {
    fn unpack(word: u64) -> Self {
        Self { entries: word & MOST_ENTRIES, chunks: word >> ENTRY_BITS }
    }
    fn pack(self) -> u64 {
        self.chunks << ENTRY_BITS | self.entries
    }
    /// Bytes of the area that it takes.
    fn used(self) -> u64 {
        let entries = self.entries * size_of::<Entry>() as u64;
        size_of::<Header>() as u64 + entries + self.chunks * ALIGNMENT as u64
    }
}

impl Toc {
    /// Makes an empty table of the `len` bytes at `base`; `None` if they are too few.
    ///
    /// # Safety
    ///
    /// The bytes must be valid for reads and writes as long as the table or anything found
    /// through it is used, and nobody else may use them before this returns.
    #[doc(alias = "shm_toc_create")]
    #[must_use]
    pub unsafe fn create(magic: u64, base: NonNull<u8>, len: usize) -> Option<Self> {
        let total = len / ALIGNMENT * ALIGNMENT;
        let header = base.cast::<Header>();
        if total < size_of::<Header>() || !header.is_aligned() || total as u64 >> OFFSET_BITS != 0 {
            return None;
        }
        let empty = Header {
            magic: AtomicU64::new(0),
            total: AtomicU64::new(total as u64),
            state: AtomicU64::new(0),
            latest: AtomicU64::new(0),
        };
        // SAFETY: aligned, long enough, and the caller promises that it is ours to write.
        unsafe { header.write(empty) };
        let toc = Self { base, total };
        toc.header().magic.store(magic, Ordering::Release);
        Some(toc)
    }

    /// Finds the table at `base`; `None` if there is none with that magic, or it says that it is
    /// longer than `len`.
    ///
    /// # Safety
    ///
    /// As for [`create`](Self::create), except that others may use the bytes: as a table.
    #[doc(alias = "shm_toc_attach")]
    #[must_use]
    pub unsafe fn attach(magic: u64, base: NonNull<u8>, len: usize) -> Option<Self> {
        if len < size_of::<Header>() || !base.cast::<Header>().is_aligned() {
            return None;
        }
        let toc = Self { base, total: 0 };
        if toc.header().magic.load(Ordering::Acquire) != magic {
            return None;
        }
        let total = usize::try_from(toc.header().total.load(Ordering::Relaxed)).ok()?;
        (total >= size_of::<Header>() && total <= len).then_some(Self { total, ..toc })
    }

    fn header(&self) -> &Header {
        // SAFETY: `create` and `attach` checked alignment and length.
        unsafe { self.base.cast::<Header>().as_ref() }
    }

    /// Changes the state, if `change` says how and the result fits.
    fn update(&self, change: impl Fn(State) -> Option<State>) -> Option<State> {
        let word = &self.header().state;
        let mut old = word.load(Ordering::Acquire);
        loop {
            let new = change(State::unpack(old))?;
            if new.used() > self.total as u64 {
                return None;
            }
            match word.compare_exchange_weak(old, new.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(new),
                Err(now) => old = now,
            }
        }
    }

    /// Takes `bytes` bytes (rounded up to [`ALIGNMENT`], and aligned to it if the area is) from
    /// the end of the area downwards; `None` if there are not that many. Their contents are
    /// whatever was there.
    #[doc(alias = "shm_toc_allocate")]
    #[must_use]
    pub fn allocate(&self, bytes: usize) -> Option<NonNull<u8>> {
        let more = (bytes.max(1)).div_ceil(ALIGNMENT) as u64;
        let state = self.update(|state| {
            let chunks = state.chunks.checked_add(more)?;
            (chunks <= (self.total / ALIGNMENT) as u64).then_some(State { chunks, ..state })
        })?;
        let offset = self.total - state.chunks as usize * ALIGNMENT;
        // SAFETY: the state was found to fit into the area, whose end the chunks are taken from.
        Some(unsafe { self.base.add(offset) })
    }

    /// Bytes that are left, for chunks and entries together.
    #[doc(alias = "shm_toc_freespace")]
    #[must_use]
    pub fn free_space(&self) -> usize {
        let used = State::unpack(self.header().state.load(Ordering::Acquire)).used();
        self.total.saturating_sub(used as usize)
    }

    /// Enters a key for an address within the area. Returns false if there is no room, the
    /// address is not within the area, or the key is there already.
    #[doc(alias = "shm_toc_insert")]
    pub fn insert(&self, key: u64, address: NonNull<u8>) -> bool {
        let offset = (address.as_ptr() as usize).wrapping_sub(self.base.as_ptr() as usize);
        let latest = &self.header().latest;
        let mut last = latest.load(Ordering::Acquire);
        if offset >= self.total || self.find(key, last).is_some() {
            return false;
        }
        let more = |state: State| {
            (state.entries < MOST_ENTRIES).then_some(State { entries: state.entries + 1, ..state })
        };
        let Some(state) = self.update(more) else { return false };
        let number = state.entries;
        loop {
            let place = (offset as u64) << ENTRY_BITS | last;
            let entry = Entry { key: AtomicU64::new(key), place: AtomicU64::new(place) };
            // SAFETY: the entry was given out to this call alone, within the area, and nobody
            // reads it before it is published.
            unsafe { self.entry(number).write(entry) };
            match latest.compare_exchange(last, number, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                // Others were first, perhaps with this key.
                Err(now) if self.find(key, now).is_some() => return false,
                Err(now) => last = now,
            }
        }
    }

    /// The entry of that number, which the caller knows to lie within the area.
    fn entry(&self, number: u64) -> NonNull<Entry> {
        let offset = size_of::<Header>() + (number - 1) as usize * size_of::<Entry>();
        // SAFETY: callers pass numbers that were given out, or checked.
        unsafe { self.base.add(offset) }.cast()
    }

    /// Finds an address by its key. Takes no lock. Linear in the number of entries.
    #[doc(alias = "shm_toc_lookup")]
    #[must_use]
    pub fn lookup(&self, key: u64) -> Option<NonNull<u8>> {
        self.find(key, self.header().latest.load(Ordering::Acquire))
    }

    /// Looks through the entries that were published up to number `last`.
    fn find(&self, key: u64, last: u64) -> Option<NonNull<u8>> {
        let room = (self.total - size_of::<Header>()) / size_of::<Entry>();
        let mut number = last;
        // Each entry was published after the one it names, but bytes that a peer damaged must not
        // lead out of the area or in a circle.
        for _ in 0..room {
            if number == 0 || number > room as u64 {
                return None;
            }
            // SAFETY: the number was checked against the area's size; any bytes are an entry.
            let entry = unsafe { self.entry(number).as_ref() };
            let place = entry.place.load(Ordering::Relaxed);
            let offset = (place >> ENTRY_BITS) as usize;
            if entry.key.load(Ordering::Relaxed) == key && offset < self.total {
                // SAFETY: checked to lie within the area.
                return Some(unsafe { self.base.add(offset) });
            }
            number = place & MOST_ENTRIES;
        }
        None
    }
}

/// How many bytes a table with its chunks will need.
#[doc(alias = "shm_toc_estimator")]
#[derive(Clone, Copy, Debug, Default)]
pub struct TocEstimator {
    chunks: usize,
    keys: usize,
}

impl TocEstimator {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self { chunks: 0, keys: 0 }
    }

    /// Counts one chunk of so many bytes.
    #[doc(alias = "shm_toc_estimate_chunk")]
    pub fn chunk(&mut self, bytes: usize) -> &mut Self {
        self.chunks = self.chunks.saturating_add(bytes.max(1).div_ceil(ALIGNMENT));
        self
    }

    /// Counts so many keys.
    #[doc(alias = "shm_toc_estimate_keys")]
    pub fn keys(&mut self, keys: usize) -> &mut Self {
        self.keys = self.keys.saturating_add(keys);
        self
    }

    /// Bytes to ask for; `None` if they exceed what a `usize` can say.
    #[doc(alias = "shm_toc_estimate")]
    #[must_use]
    pub fn bytes(&self) -> Option<usize> {
        let head = self.keys.checked_mul(size_of::<Entry>())?.checked_add(size_of::<Header>())?;
        let all = self.chunks.checked_mul(ALIGNMENT)?.checked_add(head)?;
        all.checked_next_multiple_of(ALIGNMENT)
    }
}
