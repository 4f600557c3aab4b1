//! Segments: mapping, making, and backing them with memory.
//!
//! Segments are made under the area lock; the states of a directory entry (see `header`) say what a
//! killed holder was at. How they go is in `give_back`. A segment that is given back disappears for
//! others when they find that the key of a pointer (or of their table's entry) is not the
//! directory's any more; `retired` counts such events, so that finding nothing costs one load.
//!
//! **Backing.** Memory is had from the system by steps, under the page lock, from a segment's start
//! to its watermark. A step is what is asked for, or an eighth of what the segment has if that is
//! more, up to 64 KiB: so few calls of the system are made for many small runs, and little is had
//! before its time. The store of the watermark comes last: a kill before it leaves pages that are
//! backed and not known to be, which the next step backs again. What is backed stays so until the
//! segment goes.

use dsm_core::handle::SegmentHandle;
use dsm_core::lock::RawLock;
use dsm_core::namespace;
use dsm_core::planted::{Bug, planted};
use dsm_core::segment::Segment;
use dsm_core::sync::Ordering;

use super::{Area, FIRST_KEY};
use crate::error::{Corruption, Error};
use crate::header::{Entry, INLINE_ENTRIES, MAGIC, SegmentHeader, state};
use crate::layout::{Geometry, MAX_SEGMENT, PAGE, UNIT};
use crate::local::LocalGuard;
use crate::memory::Memory;
use crate::pages::{Kind, Pages, Run};
use crate::pointer::DsaPointer;

/// Pages of the second part of the directory.
const DIRECTORY_PAGES: u32 =
    ((DsaPointer::MAX_SEGMENTS - INLINE_ENTRIES) * 64).div_ceil(PAGE as usize) as u32;

/// Bytes of the segment that is made for the rest of the directory: two units. What is left of it
/// is used like any other memory.
const DIRECTORY_SEGMENT: u64 = 2 * UNIT;

/// An area that has this many times as many segments as the namespace has slots left gets no more.
const SHARE: u32 = 4;

/// Pages that are backed by memory at once, at least and at most unless more are asked for: 16 and
/// 64 KiB. A platform takes a longer range for one that is about to be filled.
const STEP: u32 = 4;
const LONGEST_STEP: u32 = 16;

impl<L: RawLock> Area<'_, L> {
    /// The memory of the segment with this key, attached if need be.
    #[inline]
    pub(crate) fn map(&self, key: u32) -> Result<Memory<'_>, Error> {
        match self.local.memory(key) {
            Some(memory) => Ok(memory),
            None => self.attach_segment(key),
        }
    }

    /// Attaches every segment that the area has now. Who was led nowhere by a pointer asks by this
    /// whether it is because the system refuses a segment. Takes no lock of the area.
    ///
    /// # Errors
    ///
    /// That of the first segment that can't be attached: [`Error::Namespace`], [`Error::Corrupt`],
    /// [`Error::Busy`].
    #[cold]
    pub fn attach_all(&self) -> Result<(), Error> {
        for index in 1..self.entries() {
            let Some(generation) = self.entry(index)?.live() else { continue };
            match self.map(DsaPointer::key_of(index as u32, generation)) {
                // Gone since it was looked at.
                Ok(_) | Err(Error::InvalidPointer(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    #[cold]
    fn attach_segment(&self, key: u32) -> Result<Memory<'_>, Error> {
        let gone = Error::InvalidPointer(DsaPointer::compose(key, 0));
        let index = DsaPointer::compose(key, 0).segment();
        if key == FIRST_KEY || index >= self.entries() {
            return Err(gone);
        }
        let entry = self.entry(index)?;
        // First: in a fork child the table may be locked by a thread that it does not have.
        self.namespace.confirm()?;
        let guard = self.local.lock(self.namespace.platform().env)?;
        if let Some(memory) = self.local.memory(key) {
            return Ok(memory);
        }
        let Some(generation) = entry.live() else { return Err(gone) };
        if DsaPointer::key_of(index as u32, generation) != key {
            return Err(gone);
        }
        let handle = entry.handle.load(Ordering::Acquire);
        let handle = SegmentHandle::from_raw(handle).ok_or(gone)?;
        let segment = self.namespace.attach_segment(handle)?.ok_or(gone)?;
        // SAFETY: mapped as long as `segment` lives; only its header is read here.
        let memory = unsafe { Memory::new(segment.base(), segment.len() as u64) };
        let header: &SegmentHeader = memory.at(0)?;
        if header.magic.load(Ordering::Acquire) != MAGIC
            || header.key.load(Ordering::Relaxed) != key
            || header.area.load(Ordering::Relaxed)
                != self.header.segment.area.load(Ordering::Relaxed)
            || header.size.load(Ordering::Relaxed) != memory.len()
        {
            return Err(Corruption::new("a segment that is not the area's", handle.get()).into());
        }
        if self.local.key(index) != 0 {
            self.retire(&guard, index);
        }
        self.enter(&guard, key, segment);
        self.local.memory(key).ok_or(gone)
    }

    /// Puts a mapping into the process's table.
    fn enter(&self, guard: &LocalGuard<'_>, key: u32, segment: Segment<'_>) {
        let raw = segment.into_raw();
        guard.insert(key, raw.base, raw.len as u64, raw.handle.get());
    }

    /// Takes a mapping out of the process's table, leaving zeros for late readers.
    pub(super) fn retire(&self, guard: &LocalGuard<'_>, index: usize) {
        let Some(raw) = guard.remove(index) else { return };
        // SAFETY: the table holds what `into_raw` gave, once.
        let segment = unsafe { Segment::from_raw(self.namespace, raw) };
        // SAFETY: nothing is allocated in a segment that was given back; what may still come is
        // an optimistic reader or a checked copy, each of which looks afterwards whether it was
        // late.
        unsafe { segment.detach_to_blank(self.local.owner()) };
    }

    /// Lets go of segments that others have given back.
    pub(crate) fn sync_table(&self) -> Result<(), Error> {
        let retired = self.header.retired.load(Ordering::Acquire);
        if self.local.seen.load(Ordering::Relaxed) == retired {
            return Ok(());
        }
        // The second part of the directory is attached before the table is locked.
        if self.entries() > INLINE_ENTRIES {
            self.entry(INLINE_ENTRIES)?;
        }
        let guard = self.local.lock(self.namespace.platform().env)?;
        for index in 1..self.local.high.load(Ordering::Relaxed) {
            let key = self.local.key(index);
            if key == 0 {
                continue;
            }
            let live = self.entry(index)?.live();
            if live.is_none_or(|now| DsaPointer::key_of(index as u32, now) != key) {
                self.retire(&guard, index);
            }
        }
        self.local.seen.store(retired, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a segment in which a run of `pages` pages fits, and before it one for the rest of the
    /// directory if this one takes the last entry without that. The area lock is held.
    pub(super) fn grow(&self, pages: u32, unit: bool) -> Result<(), Error> {
        self.share_slots()?;
        let index = self.free_entry()?;
        let impossible = Error::InvalidRequestSize(u64::from(pages) * PAGE);
        let needed = Geometry::size_for(pages, unit).ok_or(impossible)?;
        let rest = if self.brings_directory(index)? { DIRECTORY_SEGMENT } else { 0 };
        let total = self.header.total.load(Ordering::Relaxed);
        let limit = self.header.limit.load(Ordering::Relaxed);
        let room = limit.saturating_sub(total).saturating_sub(rest);
        if needed > room {
            let largest = self.longest_run().max(Geometry::longest_run_in(room));
            return Err(Error::SizeLimit { needed: needed + rest, total, limit, largest });
        }
        let index = if rest == 0 {
            index
        } else {
            self.make_segment(index, self.entry(index)?, DIRECTORY_SEGMENT)?;
            self.free_entry()?
        };
        // As long as the limit leaves room for: short segments are soon too many.
        let mut size = self.usual_size(index).min(room / UNIT * UNIT).max(needed);
        loop {
            match self.make_segment(index, self.entry(index)?, size) {
                // A shorter one may be had where files have a limit, or memory is short. In steps
                // of a quarter, so that it is not much shorter than it could be.
                Err(error) if size > needed && error.is_of_memory() => {
                    size = ((size - size / 4) / UNIT * UNIT).max(needed);
                }
                result => return result,
            }
        }
    }

    /// Refuses a further segment to an area that has more than its share of the namespace's:
    /// whatever it has, there must be a quarter as many for others.
    fn share_slots(&self) -> Result<(), Error> {
        let mut segments = 0;
        for index in 0..self.entries() {
            segments += u32::from(self.entry(index)?.live().is_some());
        }
        let crowded = || {
            let (taken, slots) = self.namespace.segment_slots();
            (slots.saturating_sub(taken) < segments / SHARE).then_some(slots)
        };
        if crowded().is_some() {
            // The dead may have some.
            self.namespace.reap()?;
        }
        match crowded() {
            Some(slots) => Err(Error::SegmentShare { segments, slots }),
            None => Ok(()),
        }
    }

    /// Bytes of the longest free run of all segments. What backs it may be missing.
    fn longest_run(&self) -> u64 {
        let entries = (0..self.entries()).filter_map(|index| self.entry(index).ok());
        let live = entries.filter(|entry| entry.live().is_some());
        let longest = live.map(|entry| entry.longest.load(Ordering::Relaxed)).max();
        u64::from(longest.unwrap_or(0)) * PAGE
    }

    /// How long the segment with this index usually is.
    fn usual_size(&self, index: usize) -> u64 {
        let initial = self.header.initial.load(Ordering::Relaxed);
        usual_size(initial, self.header.maximum.load(Ordering::Relaxed), index)
    }

    fn make_segment(&self, index: usize, entry: &Entry, size: u64) -> Result<(), Error> {
        let geometry = self.geometry_of(index, size)?;
        let generation = entry.load().0 + 1;
        entry.clear();
        entry.store(generation, state::CREATING);
        let key = DsaPointer::key_of(index as u32, generation);
        let segment = match self.make_in_entry(index, entry, &geometry, key, size) {
            Ok(segment) => segment,
            Err(error) => {
                self.forget_directory(index);
                entry.unmake(generation);
                return Err(error);
            }
        };
        self.header.total.fetch_add(size, Ordering::Relaxed);
        entry.store(generation, state::LIVE);
        self.enter_made(index, key, segment);
        self.note_peak()
    }

    /// Enters a segment that is published by now. No process's table has a key that isn't: so a key
    /// that comes to nothing can be the next one's.
    fn enter_made(&self, index: usize, key: u32, segment: Segment<'_>) {
        // Whoever has the table for very long: the segment is attached when it is needed.
        let Ok(guard) = self.local.lock(self.namespace.platform().env) else { return };
        match self.local.key(index) {
            // Another thread needed it at once.
            now if now == key => return,
            0 => {}
            _ => self.retire(&guard, index),
        }
        self.enter(&guard, key, segment);
    }

    fn make_in_entry(
        &self,
        index: usize,
        entry: &Entry,
        geometry: &Geometry,
        key: u32,
        size: u64,
    ) -> Result<Segment<'_>, Error> {
        let (whole, fixed) = addressable(size, geometry)?;
        let segment = self.namespace.create_segment(whole, fixed)?;
        let handle = segment.handle();
        entry.handle.store(handle.get(), Ordering::Release);
        // SAFETY: mapped as long as `segment` lives; nobody else knows it.
        let memory = unsafe { Memory::new(segment.base(), size) };
        let area = self.header.segment.area.load(Ordering::Relaxed);
        Self::init_segment(memory, geometry, key, area)?;
        let header: &SegmentHeader = memory.at(0)?;
        header.magic.store(MAGIC, Ordering::Release);
        entry.size.store(size, Ordering::Relaxed);
        entry.watermark.store(geometry.meta_pages, Ordering::Relaxed);
        self.refresh(entry, &Pages::new(memory, *geometry))?;
        entry.free.store(geometry.pages - geometry.meta_pages, Ordering::Relaxed);
        if self.brings_directory(index)? {
            self.make_directory(index, entry, memory, geometry, key)?;
        }
        self.namespace.pin_segment_under(handle, self.parent)?;
        Ok(segment)
    }

    /// Puts the rest of the directory into a segment that nobody else sees yet.
    fn make_directory(
        &self,
        index: usize,
        entry: &Entry,
        memory: Memory<'_>,
        geometry: &Geometry,
        key: u32,
    ) -> Result<(), Error> {
        let tables = Pages::new(memory, *geometry);
        let none = Corruption::new("a new segment without room", index as u64);
        let page = tables.find(DIRECTORY_PAGES, false)?.ok_or(none)?;
        self.back(index, entry, geometry, page + DIRECTORY_PAGES)?;
        memory.zero(u64::from(page) * PAGE, u64::from(DIRECTORY_PAGES) * PAGE)?;
        tables.store_run(page, Run { kind: Kind::Directory, pages: DIRECTORY_PAGES })?;
        tables.mark(page, DIRECTORY_PAGES, false)?;
        let free = entry.free.load(Ordering::Relaxed);
        entry.free.store(free - DIRECTORY_PAGES, Ordering::Relaxed);
        self.refresh(entry, &tables)?;
        let at = DsaPointer::compose(key, u64::from(page) * PAGE);
        self.header.directory.store(at.raw(), Ordering::Release);
        Ok(())
    }

    /// A segment that was to bring the rest of the directory came to nothing.
    pub(super) fn forget_directory(&self, index: usize) {
        let directory = DsaPointer::from_raw(self.header.directory.load(Ordering::Relaxed));
        let here = directory.is_valid() && directory.segment() == index;
        if here && !planted(Bug::DirectoryKept) {
            self.header.directory.store(0, Ordering::Release);
        }
    }

    /// Copies the answers of the page tree to the directory entry.
    pub(super) fn refresh(&self, entry: &Entry, pages: &Pages<'_>) -> Result<(), Error> {
        let summary = pages.summary()?;
        entry.longest.store(summary.longest, Ordering::Relaxed);
        entry.units.store(summary.units, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes backed by memory in all segments.
    pub(super) fn reserved(&self) -> Result<u64, Error> {
        let mut reserved = 0;
        for index in 0..self.entries() {
            let entry = self.entry(index)?;
            if entry.live().is_none() {
                continue;
            }
            let size = entry.size.load(Ordering::Relaxed);
            // It may be given back at this moment, and have no size any more.
            if let Ok(geometry) = self.geometry_of(index, size) {
                let watermark = entry.watermark.load(Ordering::Relaxed);
                reserved += super::report::reserved(&geometry, watermark);
            }
        }
        Ok(reserved)
    }

    /// Remembers the most that was ever backed. Called after it grew, which is rare.
    fn note_peak(&self) -> Result<(), Error> {
        self.header.peak.fetch_max(self.reserved()?, Ordering::Relaxed);
        Ok(())
    }

    /// Backs the pages of a segment below `end` with memory. The page lock is held.
    pub(super) fn back(
        &self,
        index: usize,
        entry: &Entry,
        geometry: &Geometry,
        end: u32,
    ) -> Result<(), Error> {
        let from = entry.watermark.load(Ordering::Relaxed);
        if end <= from {
            return Ok(());
        }
        let step = (from / 8).clamp(STEP, LONGEST_STEP);
        let to = end.max(from.saturating_add(step)).next_multiple_of(STEP).min(geometry.pages);
        let handle =
            if index == 0 { self.parent.get() } else { entry.handle.load(Ordering::Acquire) };
        let without = Corruption::new("a segment without a handle", index as u64);
        let handle = SegmentHandle::from_raw(handle).ok_or(without)?;
        // It is attached, which this makes no difference to; or a fork child is told so.
        let gone = Error::InvalidPointer(DsaPointer::compose(self.local.key(index), 0));
        let segment = self.namespace.attach_segment(handle)?.ok_or(gone)?;
        // With little memory left a whole step may be too much where a page is not.
        let to = match self.back_range(&segment, geometry, from, to) {
            Ok(()) => to,
            Err(_) if to > end => {
                self.back_range(&segment, geometry, from, end)?;
                end
            }
            Err(e) => return Err(e),
        };
        entry.watermark.store(to, Ordering::Release);
        self.note_peak()
    }

    fn back_range(
        &self,
        segment: &Segment<'_>,
        geometry: &Geometry,
        from: u32,
        to: u32,
    ) -> Result<(), Error> {
        if !geometry.eager_sides() {
            let first = if from == geometry.meta_pages { 0 } else { from / 16 };
            let start = geometry.side(first) / PAGE * PAGE;
            let end = geometry.side(to.div_ceil(16)).next_multiple_of(PAGE);
            let end = end.min(u64::from(geometry.meta_pages) * PAGE);
            segment.reserve(start as usize..end as usize)?;
        }
        let (start, end) = (u64::from(from) * PAGE, u64::from(to) * PAGE);
        segment.reserve(start as usize..end as usize)?;
        Ok(())
    }
}

/// PostgreSQL's growth: two segments of each size, then twice that. From the two options, which may
/// be anything: they lie in shared memory.
fn usual_size(initial: u64, maximum: u64, index: usize) -> u64 {
    let initial = initial.clamp(UNIT, MAX_SEGMENT);
    let maximum = maximum.clamp(initial, MAX_SEGMENT);
    initial.saturating_mul(1 << (index / 2).min(24)).min(maximum)
}

/// Bytes of a segment of `size`, and of the part of it that is backed at once, if this process has
/// addresses for them.
pub(super) fn addressable(size: u64, geometry: &Geometry) -> Result<(usize, usize), Error> {
    match (usize::try_from(size), usize::try_from(geometry.fixed())) {
        (Ok(whole), Ok(fixed)) => Ok((whole, fixed)),
        _ => Err(Error::Namespace(namespace::Error::InvalidSize(size))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_the_directory_fits_into_its_segment() {
        let geometry = Geometry::new(DIRECTORY_SEGMENT, 0).unwrap();
        assert!(geometry.fits(DIRECTORY_PAGES, false));
        assert_eq!(Geometry::size_for(DIRECTORY_PAGES, false), Some(DIRECTORY_SEGMENT));
    }

    #[test]
    fn segments_never_become_shorter() {
        for (initial, maximum) in
            [(UNIT, MAX_SEGMENT), (UNIT, UNIT), (MAX_SEGMENT, MAX_SEGMENT), (0, 0), (u64::MAX, 0)]
        {
            let mut last = UNIT;
            for index in 0..DsaPointer::MAX_SEGMENTS {
                let size = usual_size(initial, maximum, index);
                assert!(
                    (last..=MAX_SEGMENT).contains(&size),
                    "{initial} {maximum} {index}: {size}"
                );
                last = size;
            }
            assert!(last >= maximum.min(MAX_SEGMENT));
        }
    }
}
