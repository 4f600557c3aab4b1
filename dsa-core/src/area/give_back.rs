//! Giving segments back, and which empty ones are kept.
//!
//! A segment in which nothing is allocated is *empty*. To give it back and make another one costs
//! hundreds of microseconds, most of it for memory that the system has to clear: a program that
//! allocates and frees in turn would do nothing else. So empty segments are kept, with the memory
//! behind them, for the next need: the one with most memory in any case, others as long as all
//! empty ones together have no more than a quarter of the memory of those in use. What is beyond
//! that goes when a segment becomes empty, which is the only time when it can become too much. All
//! of them go
//!
//! * by `trim`, whoever calls it;
//! * when the area can't grow: at its limit, or when memory, or segments of the namespace, are
//!   short (see `runs`). Then the allocation is tried again.
//!
//! Whether a segment is empty is no state of its own: its entry is `LIVE`, and all its pages are
//! free. So there is nothing that a kill could leave wrong: what was kept is found by whoever looks
//! next, and goes with the area when its last process has gone.
//!
//! **Giving back**, under the area lock. The page lock is held for the first step only: after it
//! nobody looks for pages there.
//!
//! ```text
//!   DOOMED       nothing is allocated there, nor will be
//!   unpinned     the namespace lets it go with the last process that has it attached
//!   FREE
//! ```

use dsm_core::handle::SegmentHandle;
use dsm_core::lock::RawLock;
use dsm_core::participant::Participant;
use dsm_core::planted::{Bug, planted};
use dsm_core::sync::Ordering;

use super::Area;
use crate::error::Error;
use crate::header::{Entry, state};
use crate::layout::{Geometry, PAGE};
use crate::pointer::DsaPointer;

/// Empty segments may have this part of the memory of those in use.
const KEPT: u64 = 4;

/// What memory lies empty, in pages that are backed.
#[derive(Default)]
struct Empty {
    /// Of all empty segments.
    pages: u64,
    /// The most that one of them has, and its index.
    most: (u64, usize),
    /// Of the segments in use.
    used: u64,
}

impl Empty {
    /// Pages that may stay.
    fn allowed(&self) -> u64 {
        self.most.0.max(self.used / KEPT)
    }
}

impl<L: RawLock> Area<'_, L> {
    /// Whether nothing is allocated in a segment.
    fn is_empty(&self, index: usize, entry: &Entry) -> bool {
        let free = entry.free.load(Ordering::Relaxed);
        // All pages that are free are one run: asked first, because it takes no computing.
        if index == 0 || entry.longest.load(Ordering::Relaxed) != free || entry.live().is_none() {
            return false;
        }
        // A segment that another thread is giving back has no size any more.
        Geometry::new(entry.size.load(Ordering::Relaxed), 0)
            .is_some_and(|geometry| free == geometry.pages - geometry.meta_pages)
    }

    /// Sums up what lies empty. Exact under the area lock and the page lock, else a look in
    /// passing.
    fn empty(&self) -> Result<Empty, Error> {
        let mut sum = Empty::default();
        for index in 0..self.entries() {
            let entry = self.entry(index)?;
            let backed = u64::from(entry.watermark.load(Ordering::Relaxed));
            if self.is_empty(index, entry) {
                sum.pages += backed;
                sum.most = sum.most.max((backed, index));
            } else if entry.live().is_some() {
                sum.used += backed;
            }
        }
        Ok(sum)
    }

    /// Whether a segment is empty, and more lies empty with it than is kept.
    pub(super) fn is_surplus(&self, index: usize, entry: &Entry) -> Result<bool, Error> {
        if !self.is_empty(index, entry) {
            return Ok(false);
        }
        for other in (1..self.entries()).filter(|other| *other != index) {
            if self.is_empty(other, self.entry(other)?) {
                let empty = self.empty()?;
                return Ok(empty.pages > empty.allowed());
            }
        }
        Ok(false)
    }

    /// After a run was freed: gives back what lies empty beyond what is kept, if its segment has
    /// become empty. The run is free whatever becomes of the segment: `trim` tries again.
    pub(super) fn give_back_surplus(&self, participant: &Participant<'_>, index: usize) {
        let surplus = || self.is_surplus(index, self.entry(index)?);
        if surplus().unwrap_or(false) {
            let _ = self.give_back_empty(participant, false);
        }
    }

    /// Gives back segments in which nothing is allocated: all of them, or (not `all`) those beyond
    /// what is kept.
    pub(crate) fn give_back_empty(
        &self,
        participant: &Participant<'_>,
        all: bool,
    ) -> Result<u32, Error> {
        let _area = self.lock_area(participant)?;
        if all {
            self.give_back_all(participant, false)
        } else {
            self.give_back_beyond(participant)
        }
    }

    /// Gives back all segments in which nothing is allocated, or (`backed`) those that have memory
    /// besides their tables: one that was made in vain has none, and would be made again and again.
    /// The area lock is held.
    pub(super) fn give_back_all(
        &self,
        participant: &Participant<'_>,
        backed: bool,
    ) -> Result<u32, Error> {
        let mut given = 0;
        for index in 1..self.entries() {
            let entry = self.entry(index)?;
            let free = entry.free.load(Ordering::Relaxed);
            let pages = (entry.size.load(Ordering::Relaxed) / PAGE) as u32;
            // What isn't free, of an empty one, is its tables.
            if !backed || entry.watermark.load(Ordering::Relaxed) > pages.saturating_sub(free) {
                given += u32::from(self.give_back(participant, index)?);
            }
        }
        Ok(given)
    }

    /// Gives back what lies empty beyond what is kept. The area lock is held.
    fn give_back_beyond(&self, participant: &Participant<'_>) -> Result<u32, Error> {
        let mut given = 0;
        let empty = self.empty()?;
        let mut kept = empty.most.0;
        // The longest ones are mostly those that were made last: they stay first.
        for index in (1..self.entries()).rev().filter(|index| *index != empty.most.1) {
            let entry = self.entry(index)?;
            if !self.is_empty(index, entry) {
                continue;
            }
            let backed = u64::from(entry.watermark.load(Ordering::Relaxed));
            if kept + backed <= empty.allowed() {
                kept += backed;
            } else {
                given += u32::from(self.give_back(participant, index)?);
            }
        }
        Ok(given)
    }

    /// Gives back a segment if nothing is allocated in it. The area lock is held, the page lock
    /// taken in between.
    fn give_back(&self, participant: &Participant<'_>, index: usize) -> Result<bool, Error> {
        let entry = self.entry(index)?;
        if !self.is_empty(index, entry) {
            return Ok(false);
        }
        let Some(generation) = entry.live() else { return Ok(false) };
        {
            let _pages = self.lock_pages(participant)?;
            if !self.is_empty(index, entry) {
                return Ok(false);
            }
            entry.store(generation, state::DOOMED);
        }
        self.finish_doomed(index, entry, generation)?;
        Ok(true)
    }

    /// Brings a doomed entry to its end; repeatable.
    pub(super) fn finish_doomed(
        &self,
        index: usize,
        entry: &Entry,
        generation: u32,
    ) -> Result<(), Error> {
        let size = entry.size.load(Ordering::Relaxed);
        let handle = entry.handle.load(Ordering::Relaxed);
        if planted(Bug::EntryFreedBeforeUnpin) {
            entry.clear();
            entry.store(generation, Entry::unused(generation));
        }
        if let Some(handle) = SegmentHandle::from_raw(handle) {
            // Not pinned any more, or gone: then an earlier attempt got this far.
            let _ = self.namespace.unpin_segment(handle);
        }
        let guard = self.local.lock(self.namespace.platform().env)?;
        if self.local.key(index) == DsaPointer::key_of(index as u32, generation) {
            self.retire(&guard, index);
        }
        drop(guard);
        entry.clear();
        entry.store(generation, Entry::unused(generation));
        self.header.retired.fetch_add(1, Ordering::AcqRel);
        let _ = self.header.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |total| {
            Some(total.saturating_sub(size))
        });
        Ok(())
    }
}
