//! Allocating and freeing runs of pages, for objects and for slabs.
//!
//! The page's word is the commit, stored under the page lock. What else a purpose needs is ordered
//! around it so that a kill in between leaves something that recovery recognises:
//!
//! | purpose | before the word | after it | if killed after the word |
//! |---|---|---|---|
//! | object | | | a bare allocation: the application's |
//! | unpublished object | header: owner, no destination | | freed when the owner is found dead |
//! | full slab | (owner is `MIXED`) | header, then owner | no owner: the run is freed |
//! | mini slab | owner 0 | header, then owner | no owner: the run is freed |
//!
//! Freeing goes the other way round: first the owner, then the word, then the index.
//!
//! **Where there is no room**, an allocation takes the area lock, and looks for what others left: what
//! is the dead's, and free objects that nobody has seen yet. That takes time, by the size of the area.
//! Then it makes a segment. If that is refused, it gives back what lies empty, and tries again. An area
//! that is full refuses many requests in a row, maybe, so that not each of them looks for what the last
//! one did not find: after a refusal a process looks again when so many times the duration of its last
//! look have passed that looking takes a sixteenth of the time at most.

use dsm_core::lock::RawLock;
use dsm_core::participant::Participant;
use dsm_core::sync::Ordering;

use super::Area;
use crate::error::{Error, FreeError};
use crate::layout::{Geometry, PAGE, UNIT_PAGES};
use crate::memory::Memory;
use crate::pages::{Kind, Pages, Run};
use crate::pointer::DsaPointer;
use crate::slab::{MIXED, Owner, Slab, SlabHeader};

/// After a refusal, so many times what the last look took go by until the next one.
const LOOK_SELDOM: u64 = 16;

/// What a run is for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// An object.
    Large,
    /// An object of this heap that is not published yet.
    Unpublished(Owner),
    /// A slab of a class for this heap.
    Slab { class: usize, owner: Owner, mini: bool },
}

impl Purpose {
    fn kind(self) -> Kind {
        match self {
            Self::Large => Kind::Large,
            Self::Unpublished(_) => Kind::Unpublished,
            Self::Slab { mini: false, .. } => Kind::Slab,
            Self::Slab { mini: true, .. } => Kind::Mini,
        }
    }
}

impl<L: RawLock> Area<'_, L> {
    /// Allocates a run, growing the area if need be. `before_growing` is called, with the area
    /// lock held, before a segment is made: it may free something, and says whether it did.
    pub(crate) fn allocate_run(
        &self,
        participant: &Participant<'_>,
        pages: u32,
        purpose: Purpose,
        before_growing: &mut dyn FnMut() -> Result<bool, Error>,
    ) -> Result<DsaPointer, Error> {
        self.sync_table()?;
        match self.run_in_existing(participant, pages, purpose) {
            Ok(Some(found)) => return Ok(found),
            Err(e) if !e.is_shortage() => return Err(e),
            Ok(None) | Err(_) => {}
        }
        self.make_room_for(participant, pages, purpose, before_growing)
    }

    /// Allocates a run where there is none, or no memory behind it.
    #[cold]
    fn make_room_for(
        &self,
        participant: &Participant<'_>,
        pages: u32,
        purpose: Purpose,
        before_growing: &mut dyn FnMut() -> Result<bool, Error>,
    ) -> Result<DsaPointer, Error> {
        let unit = purpose.kind() == Kind::Slab;
        let look = || self.run_in_existing(participant, pages, purpose);
        let _area = self.lock_area(participant)?;
        // Somebody may have made room while this one waited for the lock.
        let mut found = look();
        let mut looked = None;
        if !matches!(found, Ok(Some(_))) && self.may_look() {
            let started = self.now();
            if before_growing()? {
                found = look();
            }
            looked = Some((started, self.now()));
        }
        let mut tried = false;
        loop {
            let (shortage, backing) = match found {
                Ok(Some(found)) => {
                    self.local.next_look.store(0, Ordering::Relaxed);
                    return Ok(found);
                }
                // Others may be faster at taking what is made here, but the area lock keeps them
                // from making more: each round adds a segment, until the limit or the run is there.
                Ok(None) => (self.grow(pages, unit).err(), false),
                Err(e) => (Some(e), true),
            };
            if let Some(e) = shortage {
                // What lies empty may be what is missing.
                let again = e.is_shortage() && !core::mem::replace(&mut tried, true);
                if !again || self.give_back_all(participant, backing)? == 0 {
                    if let Some((started, ended)) = looked {
                        let next = ended + LOOK_SELDOM * ended.saturating_sub(started);
                        self.local.next_look.store(next, Ordering::Relaxed);
                    }
                    return Err(e);
                }
            }
            found = look();
        }
    }

    /// Whether it is time to look for what others left.
    fn may_look(&self) -> bool {
        let next = self.local.next_look.load(Ordering::Relaxed);
        next == 0 || self.now() >= next
    }

    /// The process's clock, in nanoseconds.
    fn now(&self) -> u64 {
        self.namespace.platform().env.now().as_nanos() as u64
    }

    /// Allocates a run in a segment that exists; `None` if none has room.
    pub(super) fn run_in_existing(
        &self,
        participant: &Participant<'_>,
        pages: u32,
        purpose: Purpose,
    ) -> Result<Option<DsaPointer>, Error> {
        let unit = purpose.kind() == Kind::Slab;
        let _pages = self.lock_pages(participant)?;
        let mut refused = None;
        for index in 0..self.entries() {
            let entry = self.entry(index)?;
            let fits = if unit {
                entry.units.load(Ordering::Relaxed) > 0
            } else {
                entry.longest.load(Ordering::Relaxed) >= pages
            };
            let Some(generation) = entry.live() else { continue };
            if !fits {
                continue;
            }
            let key = DsaPointer::key_of(index as u32, generation);
            let memory = self.map(key)?;
            let geometry = self.geometry_of(index, memory.len())?;
            let tables = Pages::new(memory, geometry);
            let Some(page) = tables.find(pages, unit)? else { continue };
            if let Err(e) = self.back(index, entry, &geometry, page + pages) {
                refused = Some(e);
                continue;
            }
            let run = Run { kind: purpose.kind(), pages };
            self.commit(memory, &geometry, &tables, key, page, run, purpose)?;
            tables.mark(page, pages, false)?;
            let free = entry.free.load(Ordering::Relaxed);
            entry.free.store(free.saturating_sub(pages), Ordering::Relaxed);
            self.refresh(entry, &tables)?;
            return Ok(Some(DsaPointer::compose(key, u64::from(page) * PAGE)));
        }
        match refused {
            Some(e) => Err(e),
            None => Ok(None),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a step of one function, named for its order")]
    fn commit(
        &self,
        memory: Memory<'_>,
        geometry: &Geometry,
        tables: &Pages<'_>,
        key: u32,
        page: u32,
        run: Run,
        purpose: Purpose,
    ) -> Result<(), Error> {
        match purpose {
            Purpose::Large => tables.store_run(page, run)?,
            Purpose::Unpublished(owner) => {
                let header: &SlabHeader = memory.at(geometry.page_header(page))?;
                header.dest.store(0, Ordering::Relaxed);
                header.publishing.store(0, Ordering::Relaxed);
                header.count.store(0, Ordering::Relaxed);
                header.owner.store(0, Ordering::Release);
                header.give_to(owner);
                tables.store_run(page, run)?;
            }
            Purpose::Slab { class, owner, mini } => {
                let slab = Slab::new(memory, geometry, key, page, mini)?;
                slab.make(run, tables.word(page)?, owner, || slab.init(geometry, class))?;
            }
        }
        Ok(())
    }

    /// Frees the object run at `pointer`, published or not.
    pub(crate) fn free_large(
        &self,
        participant: &Participant<'_>,
        pointer: DsaPointer,
    ) -> Result<(), FreeError> {
        let wild = FreeError::InvalidPointer(pointer);
        if pointer.offset() % PAGE != 0 {
            return Err(wild);
        }
        let index = pointer.segment();
        {
            let _pages = self.lock_pages(participant)?;
            let Ok(memory) = self.map(pointer.key()) else { return Err(wild) };
            let geometry = self.geometry_of(index, memory.len())?;
            let entry = self.entry(index)?;
            let page = (pointer.offset() / PAGE) as u32;
            if entry.live() != Some(pointer.generation()) || page >= geometry.pages {
                return Err(wild);
            }
            let tables = Pages::new(memory, geometry);
            match tables.run(page)? {
                Some(Run { kind: Kind::Large | Kind::Unpublished, pages }) => {
                    self.release_pages(entry, &tables, page, pages)?;
                }
                Some(_) => return Err(wild),
                None if tables.is_free(page)? => return Err(FreeError::DoubleFree(pointer)),
                None => return Err(wild),
            }
        }
        self.give_back_surplus(participant, index);
        Ok(())
    }

    /// Frees the pages of a slab that its owner has found empty. True if its segment is empty now,
    /// and more is than is kept.
    pub(crate) fn free_slab(
        &self,
        participant: &Participant<'_>,
        slab: &Slab<'_>,
    ) -> Result<bool, Error> {
        let index = slab.pointer.segment();
        {
            let _pages = self.lock_pages(participant)?;
            self.free_slab_locked(slab)?;
        }
        self.is_surplus(index, self.entry(index)?)
    }

    /// The same with the page lock held.
    pub(super) fn free_slab_locked(&self, slab: &Slab<'_>) -> Result<(), Error> {
        let index = slab.pointer.segment();
        let memory = self.map(slab.pointer.key())?;
        let geometry = self.geometry_of(index, memory.len())?;
        let page = (slab.pointer.offset() / PAGE) as u32;
        if slab.mini {
            slab.header.owner.store(0, Ordering::Release);
        } else {
            slab.header.set_mixed(&geometry, page / UNIT_PAGES);
        }
        let tables = Pages::new(memory, geometry);
        self.release_pages(self.entry(index)?, &tables, page, slab.pages())
    }

    /// Clears a run's word and brings the index up to date. The page lock is held.
    pub(super) fn release_pages(
        &self,
        entry: &crate::header::Entry,
        tables: &Pages<'_>,
        page: u32,
        pages: u32,
    ) -> Result<(), Error> {
        tables.clear_run(page)?;
        tables.mark(page, pages, true)?;
        let free = entry.free.load(Ordering::Relaxed);
        entry.free.store(free.saturating_add(pages), Ordering::Relaxed);
        self.refresh(entry, tables)
    }

    /// What `pointer` lies in.
    pub(crate) fn locate(&self, pointer: DsaPointer) -> Result<Located<'_>, Error> {
        let wild = Error::InvalidPointer(pointer);
        let memory = self.map(pointer.key())?;
        if pointer.offset() >= memory.len() {
            return Err(wild);
        }
        let geometry = self.geometry_of(pointer.segment(), memory.len())?;
        let page = (pointer.offset() / PAGE) as u32;
        if page >= geometry.pages {
            return Err(wild);
        }
        let unit: &SlabHeader = memory.at(Geometry::unit_header(page / UNIT_PAGES))?;
        let tables = Pages::new(memory, geometry);
        if unit.owner.load(Ordering::Acquire) != MIXED {
            let first = page / UNIT_PAGES * UNIT_PAGES;
            return match tables.run(first)? {
                Some(Run { kind: Kind::Slab, .. }) => {
                    let slab = Slab::new(memory, &geometry, pointer.key(), first, false)?;
                    Ok(Located::Slab(slab))
                }
                _ => Err(wild),
            };
        }
        match tables.run(page)? {
            Some(Run { kind: Kind::Mini, .. }) => {
                Ok(Located::Slab(Slab::new(memory, &geometry, pointer.key(), page, true)?))
            }
            Some(Run { kind: kind @ (Kind::Large | Kind::Unpublished), pages })
                if pointer.offset() % PAGE == 0 =>
            {
                Ok(Located::Large {
                    pages,
                    published: kind == Kind::Large,
                    header: memory.at(geometry.page_header(page))?,
                    tables,
                    page,
                })
            }
            // Perhaps freed already: the page lock's holder can tell.
            None if pointer.offset() % PAGE == 0 => Ok(Located::Unknown),
            _ => Err(wild),
        }
    }
}

/// What a pointer lies in; see [`Area::locate`].
pub(crate) enum Located<'m> {
    /// A slab; whether an object starts there is another question.
    Slab(Slab<'m>),
    /// The first byte of a run.
    Large { pages: u32, published: bool, header: &'m SlabHeader, tables: Pages<'m>, page: u32 },
    /// The start of a page that no run starts with.
    Unknown,
}
