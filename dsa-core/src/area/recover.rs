//! Repairing what the dead left.
//!
//! Three things, each repeatable, each started by whoever comes across it:
//!
//! * the page lock's dead holder: [`Area::recover_pages`] completes what was being done to an
//!   object and the words that name it (see `intent`), frees runs that were never finished, makes
//!   bitmaps and trees from the page words, and the lists of nobody's slabs from these;
//! * the area lock's dead holder: [`Area::recover_directory`] brings half-made and half-removed
//!   segments to an end and recomputes the totals;
//! * dead participants' slabs and unpublished objects: [`Area::adopt`], under the area lock. An
//!   object with truth byte 2 in a slab of which the dead were the last to allocate is freed,
//!   unless the slab's header says that it was being published and its destination holds it: then
//!   only the byte was missing. Where that can't be told now (a segment can't be mapped) the
//!   object, and with it its slab, stays the dead's for somebody who looks later.
//!
//! The scan looks at page words and headers as they change. What it sees of them may be of
//! different moments: the word of a slab of the living, made where the dead had one; beside it the
//! dead's name, from a run of theirs that somebody freed in between. So it is under the page lock,
//! which whoever makes or unmakes a slab or a run holds, that it looks once more and decides. What
//! is the dead's then stays the dead's: they do nothing any more, and nobody else takes it without
//! that lock.
//!
//! The slabs of the dead become nobody's, as if they had let go of them (`nobodys`): what is empty
//! goes back to the pages, what has room into the lists, for whoever needs the class next. Nobody's
//! slabs are looked at, too, if their state says that nobody else has: the list and the bytes.

use dsm_core::handle::ParticipantId;
use dsm_core::lock::RawLock;
use dsm_core::participant::Participant;
use dsm_core::planted::{Bug, planted};
use dsm_core::sync::{AtomicU64, Ordering};

use super::Area;
use super::nobodys::Tended;
use crate::error::{Corruption, Error};
use crate::header::state;
use crate::layout::{Geometry, UNIT_PAGES};
use crate::pages::{Kind, Pages, Run};
use crate::pointer::DsaPointer;
use crate::slab::{FREE, ORPHAN, Owner, Slab, SlabHeader, UNPUBLISHED, USED};

/// Remembers the last few answers: a scan meets the same owners again and again.
pub(super) struct Deaths<'p> {
    participant: &'p Participant<'p>,
    known: [(u64, bool); 8],
    next: usize,
}

impl<'p> Deaths<'p> {
    pub(super) fn new(participant: &'p Participant<'p>) -> Self {
        Self { participant, known: [(0, false); 8], next: 0 }
    }

    /// Whether the participant with this packed id is dead.
    pub(super) fn is_dead(&mut self, packed: u64) -> bool {
        if let Some((_, dead)) = self.known.iter().find(|(who, _)| *who == packed) {
            return *dead;
        }
        let dead = packed != self.participant.packed()
            && ParticipantId::unpack(packed).is_some_and(|id| self.participant.peers().is_dead(id));
        self.known[self.next % 8] = (packed, dead);
        self.next += 1;
        dead
    }
}

impl<L: RawLock> Area<'_, L> {
    /// Repairs the page tables of all segments. The page lock is held.
    pub(super) fn recover_pages(&self) -> Result<(), Error> {
        self.recover_intent()?;
        for index in 0..self.entries() {
            let entry = self.entry(index)?;
            let Some(generation) = entry.live() else { continue };
            let key = DsaPointer::key_of(index as u32, generation);
            let memory = self.map(key)?;
            let geometry = self.geometry_of(index, memory.len())?;
            let tables = Pages::new(memory, geometry);
            let watermark = entry.watermark.load(Ordering::Acquire);
            let directory = self.header.directory.load(Ordering::Acquire);
            let mut used = 0;
            tables.for_each_run::<Error>(watermark, &mut |page, run| {
                let here = DsaPointer::compose(key, u64::from(page) * crate::layout::PAGE);
                let unfinished = match run.kind {
                    Kind::Slab | Kind::Mini => {
                        let mini = run.kind == Kind::Mini;
                        let slab = Slab::new(memory, &geometry, key, page, mini)?;
                        !slab.header.has_owner() && !planted(Bug::OwnerlessKept)
                    }
                    Kind::Directory => directory != here.raw(),
                    Kind::Meta | Kind::Large | Kind::Unpublished => false,
                };
                if unfinished {
                    if run.kind == Kind::Slab {
                        let unit = page / UNIT_PAGES;
                        let header: &SlabHeader = memory.at(Geometry::unit_header(unit))?;
                        header.set_mixed(&geometry, unit);
                    }
                    tables.clear_run(page)?;
                } else {
                    used += run.pages;
                }
                Ok(())
            })?;
            if !planted(Bug::FreePagesTrusted) {
                tables.rebuild(watermark)?;
            }
            entry.free.store(geometry.pages.saturating_sub(used), Ordering::Relaxed);
            self.refresh(entry, &tables)?;
        }
        self.list_all()
    }

    /// Ends what was begun with segments. The area lock is held.
    pub(super) fn recover_directory(&self) -> Result<(), Error> {
        let mut total = 0;
        for index in 0..self.entries() {
            let entry = self.entry(index)?;
            match entry.load() {
                (generation, state::CREATING) => {
                    let handle = entry.handle.load(Ordering::Relaxed);
                    if let Some(handle) = dsm_core::handle::SegmentHandle::from_raw(handle) {
                        // Not pinned, or gone with its creator: nothing to undo.
                        let _ = self.namespace.unpin_segment(handle);
                    }
                    self.forget_directory(index);
                    entry.unmake(generation);
                }
                (generation, state::DOOMED) => self.finish_doomed(index, entry, generation)?,
                (_, state::LIVE) => {
                    total += entry.size.load(Ordering::Relaxed);
                }
                _ => {}
            }
        }
        self.header.total.store(total, Ordering::Relaxed);
        self.header.retired.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Looks for slabs and unpublished objects of dead participants, and for slabs of nobody at
    /// which nobody has looked. The area lock is held. Returns how many pages became free. Linear
    /// in the pages of the area.
    pub(crate) fn adopt(&self, participant: &Participant<'_>) -> Result<u64, Error> {
        let mut deaths = Deaths::new(participant);
        let mut freed = 0;
        for index in 0..self.entries() {
            let entry = self.entry(index)?;
            let Some(generation) = entry.live() else { continue };
            let key = DsaPointer::key_of(index as u32, generation);
            let memory = self.map(key)?;
            let geometry = self.geometry_of(index, memory.len())?;
            let tables = Pages::new(memory, geometry);
            let watermark = entry.watermark.load(Ordering::Acquire);
            // Runs come and go meanwhile.
            let mut page = 0;
            while page < watermark.min(geometry.pages) {
                let Some(run) = tables.run(page)? else {
                    page += 1;
                    continue;
                };
                match run.kind {
                    Kind::Slab | Kind::Mini => {
                        let mini = run.kind == Kind::Mini;
                        let slab = Slab::new(memory, &geometry, key, page, mini)?;
                        if self.adopt_slab(participant, &tables, (page, run), &slab, &mut deaths)? {
                            freed += u64::from(run.pages);
                        }
                    }
                    Kind::Unpublished => {
                        let header: &SlabHeader = memory.at(geometry.page_header(page))?;
                        let owner = header.owner();
                        if owner.is_heap() && deaths.is_dead(owner.participant) {
                            self.settle_dead_run(
                                participant,
                                &tables,
                                key,
                                page,
                                run,
                                header,
                                owner,
                            )?;
                            freed += u64::from(run.pages);
                        }
                    }
                    Kind::Meta | Kind::Large | Kind::Directory => {}
                }
                page += run.pages;
            }
        }
        Ok(freed)
    }

    /// Looks at one slab. True if it was empty, and its pages are free now.
    fn adopt_slab(
        &self,
        participant: &Participant<'_>,
        tables: &Pages<'_>,
        (page, run): (u32, Run),
        slab: &Slab<'_>,
        deaths: &mut Deaths<'_>,
    ) -> Result<bool, Error> {
        let owner = slab.header.owner();
        let dead = deaths.is_dead(owner.participant);
        if !(owner.heap == ORPHAN && (dead || slab.is_worth_a_look()?) || owner.is_heap() && dead) {
            return Ok(false);
        }
        let lock = || self.lock_pages(participant);
        let Some(_pages) = slab.really(run, tables.word(page)?, owner, lock)? else {
            return Ok(false);
        };
        slab.class()?;
        if dead {
            if owner.is_heap() && planted(Bug::AdoptedUnsettled) {
                slab.let_go(slab.count());
                slab.header.participant.store(0, Ordering::Release);
            }
            if !self.settle_dead_slab(slab)? {
                return Ok(false);
            }
            if owner.is_heap() {
                slab.let_go(slab.count() - slab.free_objects()?);
            }
            // Whoever it was, nothing of theirs is unpublished.
            slab.header.participant.store(0, Ordering::Release);
        }
        Ok(self.tend_locked(slab, &|_, _| None)? == Tended::Freed)
    }

    /// Decides about the unpublished objects of a dead owner's slab. False if one could not be
    /// decided about. The page lock is held.
    fn settle_dead_slab(&self, slab: &Slab<'_>) -> Result<bool, Error> {
        let mut decided = true;
        let publishing = u32::from(slab.header.publishing.load(Ordering::Acquire));
        for index in 0..slab.count() {
            let truth = slab.truth(index)?;
            if truth.load(Ordering::Acquire) != UNPUBLISHED {
                continue;
            }
            let object = slab.object(index);
            let published = match publishing == index + 1 && !planted(Bug::PublicationIgnored) {
                true => self.is_published(slab.header.dest.load(Ordering::Acquire), object)?,
                false => Some(false),
            };
            let Some(published) = published.filter(|_| !self.is_undecided(object)) else {
                decided = false;
                continue;
            };
            // Fails if somebody who found it there has freed or settled it: as well.
            let to = if published { USED } else { FREE };
            let _ = truth.compare_exchange(UNPUBLISHED, to, Ordering::AcqRel, Ordering::Relaxed);
        }
        if decided {
            slab.header.publishing.store(0, Ordering::Release);
        }
        Ok(decided)
    }

    /// Decides about the unpublished run of `owner`, who is dead.
    #[expect(clippy::too_many_arguments, reason = "what its caller, a walk, is at")]
    fn settle_dead_run(
        &self,
        participant: &Participant<'_>,
        tables: &Pages<'_>,
        key: u32,
        page: u32,
        run: Run,
        header: &SlabHeader,
        owner: Owner,
    ) -> Result<(), Error> {
        let pointer = DsaPointer::compose(key, u64::from(page) * crate::layout::PAGE);
        let entry = self.entry(pointer.segment())?;
        let _pages = self.lock_pages(participant)?;
        // Who found it published may have freed it meanwhile, and somebody else have been given it.
        if !run.is_still(tables.word(page)?, header, owner) {
            return Ok(());
        }
        let published = match header.publishing.load(Ordering::Acquire) {
            1 => self.is_published(header.dest.load(Ordering::Acquire), pointer)?,
            _ => Some(false),
        };
        match published.filter(|_| !self.is_undecided(pointer)) {
            Some(true) => {
                tables.publish_run(page, run.pages)?;
                Ok(())
            }
            Some(false) => self.release_pages(entry, tables, page, run.pages),
            None => Ok(()),
        }
    }

    /// Whether the destination `dest` holds `pointer`; `None` if its segment can't be mapped now.
    fn is_published(&self, dest: u64, pointer: DsaPointer) -> Result<Option<bool>, Error> {
        let dest = DsaPointer::from_raw(dest);
        let memory = match self.map(dest.key()) {
            Ok(memory) => memory,
            // Gone with its segment.
            Err(Error::InvalidPointer(_)) => return Ok(Some(false)),
            Err(Error::Namespace(_) | Error::Busy) => return Ok(None),
            Err(e) => return Err(e),
        };
        let word: Result<&AtomicU64, Corruption> = memory.at(dest.offset());
        Ok(Some(word.is_ok_and(|word| word.load(Ordering::Acquire) == pointer.raw())))
    }
}
