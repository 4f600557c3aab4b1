//! Looking at a table as a whole: figures, a listing, and a check that believes nothing.
//!
//! The check takes each partition for itself in turn and walks through all of it: every reference
//! leads to a live entry that belongs where it was found, no two lead to the same (entries are
//! marked on the way), every entry of every chunk is either referred to or free, and every counter
//! is what counting gives.

use core::fmt;
use core::mem::size_of;

use dsa_core::AtomicDsaPointer;
use dsm_core::sync::Ordering;

use crate::error::Error;
use crate::follow::Anywhere;
use crate::hash;
use crate::layout::{Bucket, LIVE, MARK, POISON, SLOTS, WINDOW};
use crate::partition::{Caller, Partition, in_window};
use crate::store::Store;
use crate::table::{Key, Session, Table, Value};
use crate::view::{Core, Found};
use crate::walk::Cursor;
use crate::words::{Fresh, depth_of, pointer_of, segment_mask};

/// What a table, or a partition of it, consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Entries.
    pub entries: u64,
    /// Entries that fit into the index as it is.
    pub slots: u64,
    /// Index segments.
    pub segments: u64,
    /// Directory words.
    pub directory: u64,
    /// Overflow buckets.
    pub overflow: u64,
    /// Chunks of entries, which come after the first ones, in the table itself.
    pub chunks: u64,
    /// Entries that fit into the table itself and the chunks.
    pub capacity: u64,
    /// Allocations that all of it takes.
    pub allocations: u64,
    /// Bytes of all of it.
    pub bytes: u64,
}

impl Stats {
    fn allocate(&mut self, bytes: u64) {
        self.allocations += 1;
        self.bytes += bytes;
    }

    fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.slots += other.slots;
        self.segments += other.segments;
        self.directory += other.directory;
        self.overflow += other.overflow;
        self.chunks += other.chunks;
        self.capacity += other.capacity;
        self.allocations += other.allocations;
        self.bytes += other.bytes;
    }
}

/// What a check found: the figures, and what is no damage but worth knowing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The figures.
    pub stats: Stats,
    /// Poisoned entries.
    pub poisoned: u64,
}

impl<K: Key, V: Value, S: Store> Table<K, V, S> {
    /// Entries at this moment, as far as one can say while others work: the sum of one counter
    /// a partition, without locks.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.core.len()
    }

    /// Whether there were no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of partitions.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.core.shape.partitions
    }
}

impl<K: Key, V: Value, S: Store> Session<'_, K, V, S> {
    /// The figures of the whole table. Each partition is locked shared in turn.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`], [`Error::Lock`].
    pub fn stats(&self) -> Result<Stats, Error> {
        self.table.core.stats(self.caller)
    }

    /// The figures of one partition.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`], [`Error::Lock`].
    pub fn partition_stats(&self, partition: usize) -> Result<Stats, Error> {
        self.table.core.partition_stats(self.caller, partition)
    }

    /// Writes a listing for humans: parameters, totals, a line for each partition.
    ///
    /// # Errors
    ///
    /// The writer's; a partition whose lock cannot be had is listed as such.
    #[doc(alias = "dshash_dump")]
    pub fn dump(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.table.core.dump(self.caller, out)
    }

    /// Checks everything. Each partition is locked exclusively in turn.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] says what is wrong; [`Error::WouldDeadlock`], [`Error::Lock`].
    pub fn check(&self) -> Result<Report, Error> {
        self.table.core.check(self.caller)
    }

    /// Gives back to the area what the table does not need at its present size: parts of the index,
    /// and chunks of entries that are empty. A chunk with one entry stays: entries are not moved.
    /// Looks at every entry; each partition is locked exclusively in turn.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`], [`Error::Lock`].
    pub fn trim(&self) -> Result<(), Error> {
        self.table.core.trim(self.caller)
    }

    /// Deletes all entries, partition by partition, and gives their memory back to the area but for
    /// a first chunk a partition. What others insert meanwhile may stay.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`], [`Error::Lock`].
    pub fn clear(&self) -> Result<(), Error> {
        self.table.core.clear(self.caller)
    }
}

impl<S: Store> Core<S> {
    pub(crate) fn len(&self) -> u64 {
        let counts = (0..self.shape.partitions).map(|i| self.line(i).count.load(Ordering::Relaxed));
        counts.map(u64::from).sum()
    }

    pub(crate) fn stats(&self, caller: Caller<'_>) -> Result<Stats, Error> {
        // What is allocated with the table itself is not counted by the partitions.
        let mut sum = Stats { allocations: 1, bytes: self.shape.total as u64, ..Stats::default() };
        for partition in 0..self.shape.partitions {
            sum.add(&self.partition_stats(caller, partition)?);
        }
        Ok(sum)
    }

    pub(crate) fn partition_stats(
        &self,
        caller: Caller<'_>,
        partition: usize,
    ) -> Result<Stats, Error> {
        if partition >= self.shape.partitions {
            return Err(Error::Partitions(u32::try_from(partition).unwrap_or(u32::MAX)));
        }
        let _lock = self.shared(caller, partition)?;
        self.measure(partition)
    }

    fn measure(&self, partition: usize) -> Result<Stats, Error> {
        let line = self.line(partition);
        let directory = line.directory.load(Ordering::Relaxed);
        let words = 1u64 << depth_of(directory);
        let mut stats = Stats {
            entries: u64::from(line.count.load(Ordering::Relaxed)),
            directory: words,
            capacity: self.shape.first_entries as u64,
            ..Stats::default()
        };
        if words > 2 {
            stats.allocate(8 * words);
        }
        let mut index = 0;
        while index < words {
            let word = self.word(pointer_of(directory) + 8 * index)?.load(Ordering::Relaxed);
            let buckets = segment_mask(word) as u64 + 1;
            stats.segments += 1;
            stats.slots += buckets * SLOTS as u64;
            if buckets > crate::layout::FIRST_BUCKETS as u64 {
                stats.allocate(buckets * size_of::<Bucket>() as u64);
            }
            let above = depth_of(directory).checked_sub(depth_of(word));
            index += 1 << above.ok_or(Error::Corrupt("depth of an index segment"))?;
        }
        let mut overflow = line.overflow.load(Ordering::Relaxed);
        while overflow != 0 {
            stats.overflow += 1;
            stats.allocate(size_of::<Bucket>() as u64);
            overflow = self.bucket(self.header().pointer(overflow))?.next();
        }
        let mut chunk = line.chunks.load(Ordering::Relaxed);
        while chunk != 0 {
            let head = self.chunk_at(chunk)?;
            let capacity = head.capacity.load(Ordering::Relaxed);
            stats.chunks += 1;
            stats.capacity += u64::from(capacity);
            stats.allocate(self.chunk_bytes(capacity as usize) as u64);
            chunk = head.next.load(Ordering::Relaxed);
        }
        Ok(stats)
    }

    pub(crate) fn dump(&self, caller: Caller<'_>, out: &mut dyn fmt::Write) -> fmt::Result {
        let kind = &self.kind;
        writeln!(
            out,
            "hash table {:#x}: {} partitions, key {} bytes, entry {} bytes (stored in {}), \
             aligned to {}, hash {:016x}, type {:016x}",
            self.pointer,
            self.shape.partitions,
            kind.key_size,
            kind.entry_size,
            self.stride(),
            kind.align,
            kind.hash_identity,
            kind.type_tag,
        )?;
        match self.stats(caller) {
            Ok(sum) => writeln!(
                out,
                "  {} entries in {} slots, {} segments, {} overflow buckets, {} chunks, {} bytes",
                sum.entries, sum.slots, sum.segments, sum.overflow, sum.chunks, sum.bytes,
            )?,
            Err(error) => writeln!(out, "  no totals: {error}")?,
        }
        for partition in 0..self.shape.partitions {
            match self.partition_stats(caller, partition) {
                Ok(stats) => writeln!(
                    out,
                    "  partition {partition}: {} entries, {} slots in {} segments, {} overflow \
                     buckets, room for {}, {} chunks",
                    stats.entries,
                    stats.slots,
                    stats.segments,
                    stats.overflow,
                    stats.capacity,
                    stats.chunks,
                )?,
                Err(error) => writeln!(out, "  partition {partition}: {error}")?,
            }
        }
        Ok(())
    }

    pub(crate) fn check(&self, caller: Caller<'_>) -> Result<Report, Error> {
        let stats = Stats { allocations: 1, bytes: self.shape.total as u64, ..Stats::default() };
        let mut report = Report { stats, poisoned: 0 };
        for partition in 0..self.shape.partitions {
            let mut locked = self.exclusive(caller, partition)?;
            locked.begin();
            let poisoned = locked.check();
            locked.end();
            report.poisoned += poisoned?;
            report.stats.add(&self.measure(partition)?);
        }
        Ok(report)
    }

    pub(crate) fn trim(&self, caller: Caller<'_>) -> Result<(), Error> {
        for partition in 0..self.shape.partitions {
            let mut locked = self.exclusive(caller, partition)?;
            locked.compact()?;
            locked.end();
        }
        Ok(())
    }

    pub(crate) fn clear(&self, caller: Caller<'_>) -> Result<(), Error> {
        for partition in 0..self.shape.partitions {
            let mut locked = self.exclusive(caller, partition)?;
            locked.clear()?;
            locked.end();
        }
        Ok(())
    }
}

impl<S: Store> Partition<'_, S> {
    /// Checks the partition; returns how many entries are poisoned.
    fn check(&self) -> Result<u64, Error> {
        let (line, record) = (self.line(), self.record());
        let [made, old] = [&record.made, &record.old];
        let named = |word: &AtomicDsaPointer| word.load(Ordering::Relaxed).is_valid();
        if record.op.load(Ordering::Relaxed) != 0
            || record.change.load(Ordering::Relaxed) != 0
            || made.iter().chain(old).any(named)
        {
            return Err(Error::Corrupt("a record of an operation that is over"));
        }
        let (mut live, mut capacity) = (0u64, 0u64);
        self.each_chunk_entry(|word| {
            capacity += 1;
            live += u64::from(word & LIVE != 0);
            word & !MARK
        })?;
        let mut cursor = Cursor::default();
        let (mut entries, mut poisoned) = (0u64, 0u64);
        while let Some(found) = self.core.advance(line, &mut cursor)? {
            let word = found.entry.word().load(Ordering::Relaxed);
            if word & LIVE == 0 {
                return Err(Error::Corrupt("a reference to an entry that is free"));
            }
            if word & MARK != 0 {
                return Err(Error::Corrupt("two references to one entry"));
            }
            found.entry.word().store(word | MARK, Ordering::Relaxed);
            self.check_place(&found, word as u32)?;
            entries += 1;
            poisoned += u64::from(word & POISON != 0);
        }
        if entries != u64::from(line.count.load(Ordering::Relaxed)) {
            return Err(Error::Corrupt("the number of entries"));
        }
        if entries != live {
            return Err(Error::Corrupt("an entry that no bucket refers to"));
        }
        // All marked ones were live, and as many as are live: each live one is referred to once.
        self.each_chunk_entry(|word| word & !MARK)?;
        let mut free = u64::from(Fresh::load(&line.fresh).count());
        let mut next = line.free.load(Ordering::Relaxed);
        while next != 0 {
            let word = self.core.entry(next)?.word().load(Ordering::Relaxed);
            free += 1;
            if word & LIVE != 0 || free > capacity {
                return Err(Error::Corrupt("the free list"));
            }
            next = word as u32;
        }
        if live + free != capacity {
            return Err(Error::Corrupt("an entry that is neither used nor free"));
        }
        let slots = self.core.measure(self.partition())?.slots;
        if slots != u64::from(line.slots.load(Ordering::Relaxed)) {
            return Err(Error::Corrupt("the number of slots"));
        }
        Ok(poisoned)
    }

    /// Replaces the header of every entry that was ever used.
    fn each_chunk_entry(&self, mut replace: impl FnMut(u64) -> u64) -> Result<(), Error> {
        let fresh = Fresh::load(&self.line().fresh);
        self.every_entry(|reference, entry| {
            // Never used: arbitrary bytes.
            if fresh.has(reference, self.core.stride()) {
                replace(0);
                return;
            }
            let word = entry.word().load(Ordering::Relaxed);
            entry.word().store(replace(word), Ordering::Relaxed);
        })
    }

    /// Whether an entry with that hash is found where it was found.
    fn check_place(&self, found: &Found<'_>, kept: u32) -> Result<(), Error> {
        if hash::partition(kept, self.core.bits) != self.partition() {
            return Err(Error::Corrupt("an entry of another partition"));
        }
        let word =
            self.core.directory_entry::<Anywhere>(self.line(), kept)?.load(Ordering::Relaxed);
        let window = WINDOW.min(segment_mask(word) + 1);
        for distance in 0..window {
            let pointer = in_window(word, kept, distance);
            if pointer == found.place & !63 {
                return Ok(());
            }
            if self.core.bucket(pointer)?.passed() == 0 {
                break;
            }
        }
        if !self.core.bucket(in_window(word, kept, 0))?.is_chained() {
            return Err(Error::Corrupt("an entry that no lookup reaches"));
        }
        let mut overflow = self.line().overflow.load(Ordering::Relaxed);
        while overflow != 0 {
            let pointer = self.core.header().pointer(overflow);
            if pointer == found.place & !63 {
                return Ok(());
            }
            overflow = self.core.bucket(pointer)?.next();
        }
        Err(Error::Corrupt("an entry that no lookup reaches"))
    }
}
