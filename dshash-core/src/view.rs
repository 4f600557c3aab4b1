//! One process's view of a table: where its parts are, and how an entry is found.
//!
//! Everything here is derived from the header and never changes, so a [`Core`] is shared by all
//! threads. What does change is reached through it anew in every operation: partition, directory
//! word, bucket, entry: four loads that depend on each other, of which the first two hit the
//! cache and the last two mostly do not. Pointers are resolved with a bounds check each, for a
//! reader without the lock may follow words that are no longer, or not yet, what they were.

use core::marker::PhantomData;
use core::mem::{align_of, size_of};
use core::num::NonZeroU32;
use core::ptr::NonNull;

use dsa_core::DsaPointer;
use dsm_core::handle::LockAddress;
use dsm_core::lock::{HeldMode, LockRef, RawLock};
use dsm_core::participant::Participant;
use dsm_core::sync::{AtomicU64, Ordering};

use crate::error::{Error, Parameter};
use crate::follow::{Anywhere, Astray, AtHand, Follow, NotAtHand};
use crate::grow::prefetch;
use crate::hash::{self, Secrets};
use crate::kind::Kind;
use crate::layout::{
    Bucket, Header, LAYOUT_VERSION, Line, MAGIC, MAX_PARTITIONS, Record, STATE_GONE, STATE_READY,
    Shape, WINDOW,
};
use crate::probe::Tags;
use crate::store::Store;
use crate::words::{depth_of, pointer_of, segment_mask, segment_pointer};

/// An entry and where its reference is.
#[derive(Clone, Copy)]
pub(crate) struct Found<'t> {
    /// Pointer of the bucket, and in its lowest bits the slot.
    pub(crate) place: u64,
    pub(crate) bucket: &'t Bucket,
    pub(crate) reference: u32,
    pub(crate) entry: Entry<'t>,
}

/// A hash's home bucket, and the two words that lead to it.
#[derive(Clone, Copy)]
pub(crate) struct Home<'t> {
    directory: u64,
    at: &'t AtomicU64,
    word: u64,
    pointer: u64,
    bucket: &'t Bucket,
}

impl Home<'_> {
    /// Whether what was looked up ahead is so under the lock. Pointers carry the generation of
    /// their segment, so equal words mean the same memory.
    #[inline(always)]
    pub(crate) fn is_current(&self, line: &Line) -> bool {
        line.directory.load(Ordering::Acquire) == self.directory
            && self.at.load(Ordering::Acquire) == self.word
    }
}

/// See the module.
pub(crate) struct Core<S> {
    pub(crate) store: S,
    base: NonNull<u8>,
    pub(crate) pointer: u64,
    pub(crate) shape: Shape,
    pub(crate) kind: Kind,
    /// Of the first partition.
    first_line: NonNull<u8>,
    stride: NonZeroU32,
    pub(crate) bits: u32,
    pub(crate) secrets: Secrets,
    first_lock: LockAddress,
}

// SAFETY: `base` points into shared memory that is used through atomics, or under the locks in it.
unsafe impl<S: Send> Send for Core<S> {}
// SAFETY: as above.
unsafe impl<S: Sync> Sync for Core<S> {}

impl<S: Store> Core<S> {
    /// Attaches to the table at `pointer`.
    ///
    /// # Safety
    ///
    /// `pointer` must be that of a table in `store` that is not destroyed while the core lives.
    pub(crate) unsafe fn attach(store: S, pointer: u64, kind: Kind) -> Result<Self, Error> {
        let handle = DsaPointer::from_raw(pointer);
        let base = store
            .resolve(handle, size_of::<Header>())
            .map_err(|unresolved| unresolved.instead_of(Error::NotATable))?;
        if base.addr().get() % align_of::<Header>() != 0 {
            return Err(Error::NotATable);
        }
        // SAFETY: readable, aligned, all atomics; a table's header by the caller's promise.
        let header = unsafe { base.cast::<Header>().as_ref() };
        if header.magic.load(Ordering::Relaxed) != MAGIC {
            return Err(Error::NotATable);
        }
        match header.state.load(Ordering::Acquire) {
            STATE_READY => {}
            STATE_GONE => return Err(Error::Destroyed),
            _ => return Err(Error::Corrupt("state of the table")),
        }
        let get = |word: &dsm_core::sync::AtomicU32| u64::from(word.load(Ordering::Relaxed));
        let lock_size = get(&header.lock_size);
        for (what, theirs, ours) in [
            (Parameter::LayoutVersion, get(&header.version), u64::from(LAYOUT_VERSION)),
            (Parameter::KeySize, get(&header.key_size), kind.key_size as u64),
            (Parameter::EntrySize, get(&header.entry_size), kind.entry_size as u64),
            (Parameter::Alignment, get(&header.align), kind.align as u64),
            (
                Parameter::HashIdentity,
                header.hash_identity.load(Ordering::Relaxed),
                kind.hash_identity,
            ),
            (Parameter::TypeTag, header.type_tag.load(Ordering::Relaxed), kind.type_tag),
            (Parameter::LockKind, header.lock_kind.load(Ordering::Relaxed), S::Lock::IDENTITY),
        ] {
            if theirs != ours {
                return Err(Error::Mismatch(what, theirs, ours));
            }
        }
        let partitions = header.partitions.load(Ordering::Relaxed);
        if !partitions.is_power_of_two() || partitions > MAX_PARTITIONS {
            return Err(Error::Corrupt("number of partitions"));
        }
        if lock_size == 0 || lock_size % 64 != 0 || lock_size > 1 << 16 {
            return Err(Error::Corrupt("size of a lock"));
        }
        let shape = Shape::new(partitions, lock_size as usize, kind.stride());
        let seed = header.seed.load(Ordering::Relaxed);
        let base = store
            .resolve(handle, shape.total)
            .map_err(|unresolved| unresolved.instead_of(Error::Corrupt("size of the table")))?;
        let first_lock = store
            .lock_address(DsaPointer::from_raw(pointer + shape.lock(0) as u64))
            .ok_or(Error::NotATable)?;
        // SAFETY: inside the allocation.
        let first_line = unsafe { base.add(shape.line(0)) };
        let stride = kind.stride_word()?;
        Ok(Self {
            store,
            base,
            pointer,
            shape,
            kind,
            first_line,
            stride,
            bits: partitions.trailing_zeros(),
            secrets: Secrets::new(seed),
            first_lock,
        })
    }

    /// # Safety
    ///
    /// `offset` must be that of a `T` inside the table's allocation.
    #[inline(always)]
    unsafe fn part<T>(&self, offset: usize) -> &T {
        // SAFETY: inside the allocation, which `attach` resolved as a whole.
        let at = unsafe { self.base.add(offset) };
        // SAFETY: built by `create`, made of atomics, mapped as long as the store lives.
        unsafe { at.cast::<T>().as_ref() }
    }

    #[inline(always)]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the header is the first part.
        unsafe { self.part(0) }
    }

    #[inline(always)]
    pub(crate) fn line(&self, partition: usize) -> &Line {
        debug_assert!(partition < self.shape.partitions);
        // SAFETY: inside the allocation, since `partition` comes from as many bits of a hash, or
        // from a loop over them.
        let at = unsafe { self.first_line.add(self.shape.stride * partition) };
        // SAFETY: built by `create`, made of atomics, mapped as long as the store lives.
        unsafe { at.cast().as_ref() }
    }

    #[inline(always)]
    pub(crate) fn record(&self, partition: usize) -> &Record {
        debug_assert!(partition < self.shape.partitions);
        // SAFETY: as for `line`.
        unsafe { self.part(self.shape.record(partition)) }
    }

    /// From one entry to the next.
    #[inline(always)]
    pub(crate) fn stride(&self) -> usize {
        self.stride.get() as usize
    }

    /// The partition's lock, initialised and mapped as long as the store.
    #[inline(always)]
    pub(crate) fn lock_at(&self, partition: usize) -> NonNull<S::Lock> {
        debug_assert!(partition < self.shape.partitions);
        // SAFETY: inside the allocation.
        unsafe { self.base.add(self.shape.lock(partition)) }.cast()
    }

    /// The address of the partition's lock in the namespace.
    #[inline(always)]
    pub(crate) fn lock_address(&self, partition: usize) -> LockAddress {
        LockAddress::from_raw(self.first_lock.get() + (self.shape.stride * partition) as u64)
    }

    /// The partition's lock.
    #[inline(always)]
    pub(crate) fn lock(&self, partition: usize) -> LockRef<'_, S::Lock> {
        let (at, address) = (self.lock_at(partition), self.lock_address(partition));
        // SAFETY: initialised by `create`, mapped as long as the store lives; `first_lock` is the
        // address of the first one, and the others follow in the same segment.
        unsafe { LockRef::new(at, address) }
    }

    /// In what mode `participant` holds any of this table's locks.
    #[inline(always)]
    pub(crate) fn held_by(&self, participant: &Participant<'_>) -> Option<HeldMode> {
        let len = self.shape.stride * self.shape.partitions;
        participant.held_within(self.first_lock, len as u64)
    }

    #[inline(always)]
    pub(crate) fn partition_of(&self, hash: u64) -> usize {
        hash::partition(hash::kept(hash), self.bits)
    }

    #[inline(always)]
    pub(crate) fn bucket_by<F: Follow>(&self, pointer: u64) -> Result<&Bucket, F::Failure> {
        let at = F::resolve(&self.store, pointer, size_of::<Bucket>(), Astray::Bucket)?;
        // SAFETY: readable by the store's promise, aligned because the segment is; all atomics.
        Ok(unsafe { at.cast().as_ref() })
    }

    /// The bucket at a pointer aligned to its size.
    #[inline(always)]
    pub(crate) fn bucket(&self, pointer: u64) -> Result<&Bucket, Error> {
        self.bucket_by::<Anywhere>(pointer)
    }

    #[inline(always)]
    fn word_by<F: Follow>(&self, pointer: u64) -> Result<&AtomicU64, F::Failure> {
        let at = F::resolve(&self.store, pointer, 8, Astray::Directory)?;
        // SAFETY: readable by the store's promise, aligned as directories are; an atomic.
        Ok(unsafe { at.cast().as_ref() })
    }

    /// A word of a directory.
    pub(crate) fn word(&self, pointer: u64) -> Result<&AtomicU64, Error> {
        self.word_by::<Anywhere>(pointer)
    }

    #[inline(always)]
    pub(crate) fn entry_by<F: Follow>(&self, reference: u32) -> Result<Entry<'_>, F::Failure> {
        let pointer = self.header().pointer(reference);
        let base = F::resolve(&self.store, pointer, self.stride(), Astray::Entry)?;
        Ok(Entry { base, _memory: PhantomData })
    }

    /// The entry a reference leads to.
    #[inline(always)]
    pub(crate) fn entry(&self, reference: u32) -> Result<Entry<'_>, Error> {
        self.entry_by::<Anywhere>(reference)
    }

    /// The directory word for a hash.
    #[inline(always)]
    pub(crate) fn directory_entry<'t, F: Follow>(
        &'t self,
        line: &'t Line,
        kept: u32,
    ) -> Result<&'t AtomicU64, F::Failure> {
        self.directory_word::<F>(line, line.directory.load(Ordering::Acquire), kept)
    }

    #[inline(always)]
    fn directory_word<'t, F: Follow>(
        &'t self,
        line: &'t Line,
        directory: u64,
        kept: u32,
    ) -> Result<&'t AtomicU64, F::Failure> {
        let depth = depth_of(directory);
        if depth <= 1 {
            // Where the pointer leads then, too.
            let first_bit = hash::directory_index(kept, self.bits, 1);
            return Ok(&line.inline[first_bit & depth as usize]);
        }
        let index = hash::directory_index(kept, self.bits, depth);
        self.word_by::<F>(pointer_of(directory) + 8 * index as u64)
    }

    /// Pointer of the home bucket under a directory word.
    #[inline(always)]
    pub(crate) fn home_of(word: u64, kept: u32) -> u64 {
        segment_pointer(word) + 64 * hash::home(kept, segment_mask(word)) as u64
    }

    /// Where the home bucket is, by the directory as it is now.
    #[inline(always)]
    pub(crate) fn home<'t, F: Follow>(
        &'t self,
        line: &'t Line,
        hash: u64,
    ) -> Result<Home<'t>, F::Failure> {
        let kept = hash::kept(hash);
        let directory = line.directory.load(Ordering::Acquire);
        let at = self.directory_word::<F>(line, directory, kept)?;
        let word = at.load(Ordering::Acquire);
        let pointer = Self::home_of(word, kept);
        Ok(Home { directory, at, word, pointer, bucket: self.bucket_by::<F>(pointer)? })
    }

    /// Looks up the home bucket before the lock is there, as a reader without it would, and has it
    /// fetched: the memory is on its way while the lock is taken.
    #[inline(always)]
    pub(crate) fn home_ahead<'t>(
        &'t self,
        line: &'t Line,
        hash: u64,
    ) -> Result<Home<'t>, NotAtHand> {
        let home = self.home::<AtHand>(line, hash)?;
        prefetch(core::ptr::from_ref(home.bucket).cast());
        Ok(home)
    }

    /// Finds the entry whose tag fits and of which `is_it` says so, from a home bucket that is
    /// known to be the present one (or, without the lock, was a moment ago). Visits at most
    /// `overflow` overflow buckets.
    #[inline(always)]
    pub(crate) fn find_from<'t, F: Follow>(
        &'t self,
        home: Home<'t>,
        line: &Line,
        hash: u64,
        overflow: usize,
        is_it: &mut impl FnMut(Entry<'_>) -> bool,
    ) -> Result<Option<Found<'t>>, F::Failure> {
        let Home { word, pointer, bucket, .. } = home;
        let (tags, tag) = (Tags::of(bucket), hash::tag(hash));
        if let Some(found) = self.find_in::<F>(bucket, pointer, tags, tag, is_it)? {
            return Ok(Some(found));
        }
        if !tags.may_continue() {
            return Ok(None);
        }
        let mut found = None;
        self.find_far::<F>(line, word, hash, overflow, is_it, &mut found)?;
        Ok(found)
    }

    #[inline(always)]
    fn find_in<'t, F: Follow>(
        &'t self,
        bucket: &'t Bucket,
        pointer: u64,
        tags: Tags,
        tag: u8,
        is_it: &mut impl FnMut(Entry<'_>) -> bool,
    ) -> Result<Option<Found<'t>>, F::Failure> {
        for slot in tags.matching(tag) {
            let reference = bucket.refs[slot].load(Ordering::Acquire);
            let entry = self.entry_by::<F>(reference)?;
            if is_it(entry) {
                return Ok(Some(Found { place: pointer | slot as u64, bucket, reference, entry }));
            }
        }
        Ok(None)
    }

    /// The rest of [`find_from`](Self::find_from). What it finds is given out through a reference,
    /// so that what is found in the home bucket, as most is, need not be in memory.
    #[cold]
    #[inline(never)]
    fn find_far<'t, F: Follow>(
        &'t self,
        line: &Line,
        word: u64,
        hash: u64,
        overflow: usize,
        is_it: &mut impl FnMut(Entry<'_>) -> bool,
        found: &mut Option<Found<'t>>,
    ) -> Result<(), F::Failure> {
        let (mask, tag) = (segment_mask(word), hash::tag(hash));
        let home = hash::home(hash::kept(hash), mask);
        for distance in 0..WINDOW.min(mask + 1) {
            let pointer = segment_pointer(word) + 64 * ((home + distance) & mask) as u64;
            let bucket = self.bucket_by::<F>(pointer)?;
            let tags = Tags::of(bucket);
            // The home bucket has been searched.
            if distance > 0 {
                *found = self.find_in::<F>(bucket, pointer, tags, tag, is_it)?;
                if found.is_some() {
                    return Ok(());
                }
            }
            if bucket.passed() == 0 {
                break;
            }
        }
        let home = self.bucket_by::<F>(segment_pointer(word) + 64 * home as u64)?;
        if !home.is_chained() {
            return Ok(());
        }
        let mut next = line.overflow.load(Ordering::Acquire);
        for _ in 0..overflow {
            if next == 0 {
                return Ok(());
            }
            let pointer = self.header().pointer(next);
            if pointer % 64 != 0 {
                return Err(F::astray(Astray::OverflowBucket));
            }
            let bucket = self.bucket_by::<F>(pointer)?;
            *found = self.find_in::<F>(bucket, pointer, Tags::of(bucket), tag, is_it)?;
            if found.is_some() {
                return Ok(());
            }
            next = bucket.next();
        }
        if next == 0 { Ok(()) } else { Err(F::astray(Astray::EndOfOverflow)) }
    }
}

/// The memory of an entry, header first: readable for `'t`, aligned to 16, as long as the table's
/// stride.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'t> {
    base: NonNull<u8>,
    _memory: PhantomData<&'t AtomicU64>,
}

impl<'t> Entry<'t> {
    /// First byte.
    #[inline(always)]
    pub(crate) fn base(self) -> NonNull<u8> {
        self.base
    }

    /// The header word: the kept half of the hash, or the next free entry, below; state bits
    /// above.
    #[inline(always)]
    pub(crate) fn word(self) -> &'t AtomicU64 {
        // SAFETY: only `Core::entry` makes entries: resolved with their whole length, which is at
        // least 16, and aligned to 16.
        unsafe { self.base.cast().as_ref() }
    }

    /// The key, or what follows it: `offset` is less than the stride.
    #[inline(always)]
    pub(crate) fn data(self, offset: usize) -> NonNull<u8> {
        // SAFETY: inside the entry's memory.
        unsafe { self.base.add(offset) }
    }
}
