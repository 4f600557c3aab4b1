//! Looking at an area: figures, a dump, a check of everything.

use core::fmt;

use dsm_core::lock::RawLock;
use dsm_core::namespace::Namespace;
use dsm_core::participant::Participant;
use dsm_core::sync::Ordering;

use super::Area;
use super::recover::Deaths;
use crate::class::SIZES;
use crate::error::{Corruption, Error};
use crate::header::{AreaHeader, MAGIC, state};
use crate::layout::{Geometry, PAGE, UNIT_PAGES};
use crate::memory::Memory;
use crate::pages::{Kind, Pages, Run};
use crate::pointer::DsaPointer;
use crate::slab::{FREE, FREEING, MIXED, Slab, SlabHeader, UNPUBLISHED, USED};

/// Figures of an area, in bytes. Read without a lock: each is right, together they may be of
/// slightly different moments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Of all segments: address space.
    #[doc(alias = "dsa_get_total_size")]
    pub total: u64,
    /// Backed by memory.
    pub reserved: u64,
    /// The most that was ever backed by memory.
    pub peak: u64,
    /// Of allocated objects, as rounded up to their size class or to pages.
    pub used: u64,
    /// What `total` may not exceed; `u64::MAX` for no limit.
    pub limit: u64,
    /// How many segments there are.
    pub segments: u32,
    /// How many objects are allocated.
    pub objects: u64,
}

/// What a check found, all of it in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Segments.
    pub segments: u32,
    /// Slabs, of one page and of sixteen.
    pub slabs: u64,
    /// Of those, slabs that no living heap has: those that were full since, and those whose owner
    /// has left or died.
    pub abandoned_slabs: u64,
    /// Runs of pages that are objects.
    pub runs: u64,
    /// Allocated objects, in slabs and as runs.
    pub objects: u64,
    /// Of those, objects that are not published.
    pub unpublished: u64,
    /// Bytes of allocated objects.
    pub used: u64,
    /// Pages that are free, backed by memory or not.
    pub free_pages: u64,
    /// Pages of metadata.
    pub metadata_pages: u64,
}

/// Bytes backed by memory in a segment whose watermark is `watermark`.
pub(super) fn reserved(geometry: &Geometry, watermark: u32) -> u64 {
    let data = u64::from(watermark.saturating_sub(geometry.meta_pages)) * PAGE;
    geometry.fixed() + data
}

impl<L: RawLock> Area<'_, L> {
    /// The area's figures. Looks at the truth bytes of all slabs: linear in what is in use.
    ///
    /// # Errors
    ///
    /// [`Error::Namespace`] if a segment can't be attached; [`Error::Corrupt`].
    pub fn stats(&self) -> Result<Stats, Error> {
        let mut report = Report::default();
        self.walk(&mut |_, _, _| Ok(()), &mut report)?;
        Ok(Stats {
            total: self.header.total.load(Ordering::Relaxed),
            reserved: self.reserved()?,
            peak: self.header.peak.load(Ordering::Relaxed),
            used: report.used,
            limit: self.header.limit.load(Ordering::Relaxed),
            segments: report.segments,
            objects: report.objects,
        })
    }

    /// Bytes of all segments of the area with that handle, which need not be attached; `None` if
    /// there is none.
    ///
    /// # Errors
    ///
    /// [`Error::NotAnArea`]; [`Error::Namespace`] if its first segment can't be mapped.
    #[doc(alias = "dsa_get_total_size_from_handle")]
    pub fn total_size_of(
        namespace: &Namespace<'_>,
        handle: dsm_core::handle::SegmentHandle,
    ) -> Result<Option<u64>, Error> {
        let Some(segment) = namespace.attach_segment(handle)? else { return Ok(None) };
        // SAFETY: mapped as long as `segment` lives, which is as long as this is used.
        let memory = unsafe { Memory::new(segment.base(), segment.len() as u64) };
        let header: &AreaHeader = memory.at(0)?;
        if header.segment.magic.load(Ordering::Acquire) != MAGIC {
            return Err(Error::NotAnArea);
        }
        Ok(Some(header.total.load(Ordering::Relaxed)))
    }

    /// Checks the structure of the whole area under its locks: page words against bitmaps and
    /// trees, headers against classes, truth bytes, owners, totals. Objects may be allocated and
    /// freed in slabs meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] with the first contradiction; [`Error::Lock`].
    pub fn check(&self, participant: &Participant<'_>) -> Result<Report, Error> {
        let _area = self.lock_area(participant)?;
        let _pages = self.lock_pages(participant)?;
        let mut report = Report::default();
        let mut total = 0;
        for index in 0..self.entries() {
            let entry = self.entry(index)?;
            let (generation, state) = entry.load();
            match state {
                state::FREE | state::RETIRED => continue,
                state::LIVE => {}
                _ => return Err(Corruption::new("a half-made segment", index as u64).into()),
            }
            let key = DsaPointer::key_of(index as u32, generation);
            let memory = self.map(key)?;
            let geometry = self.geometry_of(index, memory.len())?;
            let watermark = entry.watermark.load(Ordering::Relaxed);
            if watermark > geometry.pages || watermark < geometry.meta_pages {
                return Err(Corruption::new("a watermark", u64::from(watermark)).into());
            }
            let tables = Pages::new(memory, geometry);
            let free = tables.check(watermark)?;
            let summary = tables.summary()?;
            for (hint, truth, what) in [
                (&entry.free, free, "a segment's number of free pages"),
                (&entry.longest, summary.longest, "a segment's longest free run"),
                (&entry.units, summary.units, "a segment's number of free units"),
            ] {
                if hint.load(Ordering::Relaxed) != truth {
                    return Err(Corruption::new(what, index as u64).into());
                }
            }
            self.check_units(memory, &geometry, &tables, watermark)?;
            self.check_owners(memory, &geometry, key, &tables, watermark)?;
            report.free_pages += u64::from(free);
            report.metadata_pages += u64::from(geometry.meta_pages);
            total += memory.len();
        }
        self.walk(
            &mut |slab, _, _| {
                slab.class()?;
                for index in 0..slab.count() {
                    if slab.truth(index)?.load(Ordering::Relaxed) > UNPUBLISHED {
                        let object = slab.object(index);
                        return Err(Corruption::new("a truth byte", object.raw()));
                    }
                }
                Ok(())
            },
            &mut report,
        )?;
        self.check_lists()?;
        self.count_abandoned(participant, &mut report)?;
        if self.header.total.load(Ordering::Relaxed) != total {
            return Err(Corruption::new("the total size", total).into());
        }
        Ok(report)
    }

    fn check_units(
        &self,
        memory: Memory<'_>,
        geometry: &Geometry,
        tables: &Pages<'_>,
        watermark: u32,
    ) -> Result<(), Error> {
        for unit in 0..watermark.div_ceil(UNIT_PAGES) {
            let header: &SlabHeader = memory.at(Geometry::unit_header(unit))?;
            let run = tables.run(unit * UNIT_PAGES)?;
            let slab = matches!(run, Some(Run { kind: Kind::Slab, .. }));
            let damage = |what| Err(Corruption::new(what, u64::from(unit)).into());
            if (header.owner.load(Ordering::Relaxed) == MIXED) == slab {
                return damage("a unit's header contradicts its page word");
            }
            if !slab && header.truth.load(Ordering::Relaxed) != geometry.side(unit) {
                return damage("a unit of pages whose header names no side area");
            }
        }
        Ok(())
    }

    /// Under the page lock no slab is being made or unmade: each has an owner.
    fn check_owners(
        &self,
        memory: Memory<'_>,
        geometry: &Geometry,
        key: u32,
        tables: &Pages<'_>,
        watermark: u32,
    ) -> Result<(), Error> {
        tables.for_each_run(watermark, &mut |page, run| {
            if matches!(run.kind, Kind::Slab | Kind::Mini) {
                let slab = Slab::new(memory, geometry, key, page, run.kind == Kind::Mini)?;
                if !slab.header.has_owner() {
                    return Err(Corruption::new("a slab without an owner", slab.pointer.raw()));
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    fn count_abandoned(
        &self,
        participant: &Participant<'_>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let mut abandoned = 0;
        let mut deaths = Deaths::new(participant);
        self.walk(
            &mut |slab, _, _| {
                let owner = slab.header.owner();
                abandoned += u64::from(!owner.is_heap() || deaths.is_dead(owner.participant));
                Ok(())
            },
            &mut Report::default(),
        )?;
        report.abandoned_slabs = abandoned;
        Ok(())
    }

    /// Calls `each` with every slab (and its class and free objects), and counts.
    fn walk(
        &self,
        each: &mut dyn FnMut(&Slab<'_>, usize, u32) -> Result<(), Corruption>,
        report: &mut Report,
    ) -> Result<(), Error> {
        for index in 0..self.entries() {
            let entry = self.entry(index)?;
            let Some(generation) = entry.live() else { continue };
            let key = DsaPointer::key_of(index as u32, generation);
            // It may be given back at this moment.
            let Ok(memory) = self.map(key) else { continue };
            let geometry = self.geometry_of(index, memory.len())?;
            report.segments += 1;
            let watermark = entry.watermark.load(Ordering::Acquire);
            let tables = Pages::new(memory, geometry);
            tables.for_each_run::<Error>(watermark, &mut |page, run| {
                match run.kind {
                    Kind::Slab | Kind::Mini => {
                        let mini = run.kind == Kind::Mini;
                        let slab = Slab::new(memory, &geometry, key, page, mini)?;
                        if !slab.header.has_owner() {
                            // Being made or unmade at this moment.
                            return Ok(());
                        }
                        let class = slab.class()?;
                        let mut used = 0;
                        for object in 0..slab.count() {
                            match slab.truth(object)?.load(Ordering::Relaxed) {
                                FREE => {}
                                USED | FREEING => used += 1,
                                _ => {
                                    used += 1;
                                    report.unpublished += 1;
                                }
                            }
                        }
                        each(&slab, class, slab.count() - used)?;
                        report.slabs += 1;
                        report.objects += u64::from(used);
                        report.used += u64::from(used) * u64::from(SIZES[class]);
                    }
                    Kind::Large | Kind::Unpublished => {
                        report.runs += 1;
                        report.objects += 1;
                        report.unpublished += u64::from(run.kind == Kind::Unpublished);
                        report.used += u64::from(run.pages) * PAGE;
                    }
                    Kind::Meta | Kind::Directory => {}
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Writes what the area consists of: segments, and slabs by class. Takes no lock.
    ///
    /// # Errors
    ///
    /// Those of `out`. Damage is written, not returned.
    #[doc(alias = "dsa_dump")]
    pub fn dump(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        match self.stats() {
            Ok(s) => writeln!(
                out,
                "area {}: {} bytes in {} segments, {} reserved (peak {}), {} used by {} objects",
                self.parent, s.total, s.segments, s.reserved, s.peak, s.used, s.objects
            )?,
            Err(e) => writeln!(out, "area {}: {e}", self.parent)?,
        }
        let limit = self.header.limit.load(Ordering::Relaxed);
        if limit != u64::MAX {
            writeln!(out, "  limited to {limit} bytes")?;
        }
        for index in 0..self.entries() {
            let Ok(entry) = self.entry(index) else { continue };
            let (generation, state) = entry.load();
            if state == state::FREE {
                continue;
            }
            let state = match state {
                state::LIVE => "live",
                state::CREATING => "being created",
                state::DOOMED => "being given back",
                state::RETIRED => "retired",
                _ => "of unknown state",
            };
            writeln!(
                out,
                "  segment {index}.{generation} {state}: {} bytes, {} pages backed, {} free, \
                 longest run {}, free units {}",
                entry.size.load(Ordering::Relaxed),
                entry.watermark.load(Ordering::Relaxed),
                entry.free.load(Ordering::Relaxed),
                entry.longest.load(Ordering::Relaxed),
                entry.units.load(Ordering::Relaxed),
            )?;
        }
        // (slabs, objects, free) by class.
        let mut classes = [(0u64, 0u64, 0u64); SIZES.len()];
        let walked = self.walk(
            &mut |slab, class, free| {
                classes[class].0 += 1;
                classes[class].1 += u64::from(slab.count());
                classes[class].2 += u64::from(free);
                Ok(())
            },
            &mut Report::default(),
        );
        if let Err(e) = walked {
            writeln!(out, "  {e}")?;
        }
        for (size, (slabs, objects, free)) in SIZES.iter().zip(classes) {
            if slabs != 0 {
                let used = objects - free;
                writeln!(out, "  class {size}: {slabs} slabs, {used} of {objects} objects used")?;
            }
        }
        Ok(())
    }
}
