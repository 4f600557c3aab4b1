//! Slabs of nobody.
//!
//! A heap owns a slab only while it may allocate from it. One that is full it lets go of: there is
//! nothing in it that the heap knows to be free, so that nothing has to be forgotten, and one store
//! does it. From then on nobody allocates there, and everybody frees alike (`heap::free`). So the
//! memory of objects goes back to the pages when the last of them is freed, by whoever frees it,
//! whether the one who allocated them works, sleeps or is dead.
//!
//! **Truth**: the owner word `ORPHAN`, and the truth bytes. Nobody turns a 0 into anything here:
//! what is empty stays empty. `participant` names the last owner as long as objects of its are not
//! published; nobody but it takes the slab meanwhile, and who settles them after its death stores
//! 0.
//!
//! **Derived**: `left`, objects that are allocated, which whoever frees one counts down *before* it
//! frees it, since the slab may be gone afterwards; and `list`, `next`, `prev`: the area's list of
//! slabs of the class in which there is room (its first one is in the control block). `left` says
//! when to look: when there is room, and when there is nothing else. It may be wrong, if somebody
//! was killed between the count and the free, or freed as the slab became nobody's: it is a hint
//! when to look, and what is found counts.
//!
//! **Who writes**: the holder of the page lock, all but truth bytes and `left`. It looks (`tend`):
//! an empty slab goes back to the pages, one with room to its last owner, if that is who freed, or
//! into the list. Heaps that need a slab of the class take the list's first (`take_open`).
//!
//! **After a kill**: whoever takes the page lock of the dead makes the lists anew (`list_all`). Who
//! is killed before it has looked leaves a slab with room in no list, or an empty one: whoever
//! looks for the property of the dead (`adopt`: before the area grows, before a refusal, and on
//! `trim`) finds it.

use dsm_core::lock::RawLock;
use dsm_core::participant::Participant;
use dsm_core::planted::{Bug, planted};
use dsm_core::sync::Ordering;

use super::Area;
use super::runs::Located;
use crate::error::{Corruption, Error};
use crate::header::AreaHeader;
use crate::pages::{Kind, Pages};
use crate::pointer::DsaPointer;
use crate::slab::{LIST_NONE, LIST_OPEN, ORPHAN, Owner, Slab};

/// Slabs of a list that are looked at for one that can be taken: all but those with unpublished
/// objects can.
const LOOK: u32 = 8;

/// What became of a slab of nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tended {
    /// It stays nobody's.
    Kept,
    /// It was empty, and its pages are free.
    Freed,
    /// It went to who freed the object.
    Taken,
}

impl<'n, L: RawLock> Area<'n, L> {
    /// The slab that starts at `raw`.
    pub(crate) fn slab_at(&self, raw: u64) -> Result<Slab<'_>, Error> {
        match self.locate(DsaPointer::from_raw(raw))? {
            Located::Slab(slab) if slab.pointer.raw() == raw => Ok(slab),
            _ => Err(Corruption::new("a link that leads to no slab", raw).into()),
        }
    }

    /// Looks at the slab of nobody in which an object was freed, at `pointer`; it may be gone by
    /// now, or be another one. If its last owner is the `taker` for it, that has it back, if there
    /// is room: then it is returned. `uncounted`: who freed the object took the slab for
    /// somebody's.
    pub(crate) fn tend(
        &self,
        participant: &Participant<'_>,
        pointer: DsaPointer,
        uncounted: bool,
        taker: &dyn Fn(&Slab<'_>, usize) -> Option<Owner>,
    ) -> Result<Option<Slab<'_>>, Error> {
        let index = pointer.segment();
        {
            let _pages = self.lock_pages(participant)?;
            if self.entry(index)?.live() != Some(pointer.generation()) {
                return Ok(None);
            }
            let Ok(Located::Slab(slab)) = self.locate(pointer) else { return Ok(None) };
            if slab.header.owner.load(Ordering::Acquire) != ORPHAN {
                return Ok(None);
            }
            if uncounted {
                slab.header.count_down();
            }
            match self.tend_locked(&slab, taker)? {
                Tended::Kept => return Ok(None),
                Tended::Taken => return Ok(Some(slab)),
                Tended::Freed => {}
            }
        }
        self.give_back_surplus(participant, index);
        Ok(None)
    }

    /// Looks at a slab of nobody. The page lock is held.
    pub(super) fn tend_locked(
        &self,
        slab: &Slab<'_>,
        taker: &dyn Fn(&Slab<'_>, usize) -> Option<Owner>,
    ) -> Result<Tended, Error> {
        if planted(Bug::RemoteFreeUnseen) {
            return Ok(Tended::Kept);
        }
        let class = slab.class()?;
        let free = slab.free_objects()?;
        let counted = planted(Bug::CountBelieved) && slab.header.left.load(Ordering::Relaxed) == 0;
        if counted || free == slab.count() && slab.is_empty()? {
            self.unlist(slab, class)?;
            self.free_slab_locked(slab)?;
            return Ok(Tended::Freed);
        }
        if free < slab.hysteresis() {
            return Ok(Tended::Kept);
        }
        let last = slab.header.owner().participant;
        if let Some(owner) = taker(slab, class).filter(|taker| taker.participant == last) {
            self.unlist(slab, class)?;
            slab.header.give_to(owner);
            return Ok(Tended::Taken);
        }
        self.list(slab, class)?;
        Ok(Tended::Kept)
    }

    /// Gives a slab of nobody with room to `owner`, if there is one of the class.
    pub(crate) fn take_open(
        &self,
        participant: &Participant<'_>,
        class: usize,
        owner: Owner,
    ) -> Result<Option<Slab<'_>>, Error> {
        let header: &AreaHeader = self.header;
        let first = &header.open[class];
        if first.load(Ordering::Relaxed) == 0 {
            return Ok(None);
        }
        let _pages = self.lock_pages(participant)?;
        let mut at = first.load(Ordering::Relaxed);
        for _ in 0..LOOK {
            if at == 0 {
                break;
            }
            let slab = self.slab_at(at)?;
            let last = slab.header.owner().participant;
            if last == owner.participant || !slab.has_unpublished()? {
                self.unlist(&slab, class)?;
                slab.header.give_to(owner);
                return Ok(Some(slab));
            }
            at = slab.header.next.load(Ordering::Relaxed);
        }
        Ok(None)
    }

    /// Puts a slab of nobody into the list of its class, as its first. The page lock is held.
    fn list(&self, slab: &Slab<'_>, class: usize) -> Result<(), Error> {
        if slab.header.list.load(Ordering::Relaxed) == LIST_OPEN {
            return Ok(());
        }
        let head = &self.header.open[class];
        let first = head.load(Ordering::Relaxed);
        slab.header.prev.store(0, Ordering::Relaxed);
        slab.header.next.store(first, Ordering::Relaxed);
        if first != 0 {
            self.slab_at(first)?.header.prev.store(slab.pointer.raw(), Ordering::Relaxed);
        }
        slab.header.list.store(LIST_OPEN, Ordering::Relaxed);
        head.store(slab.pointer.raw(), Ordering::Relaxed);
        Ok(())
    }

    /// Takes a slab of nobody out of the list, if it is there. The page lock is held.
    fn unlist(&self, slab: &Slab<'_>, class: usize) -> Result<(), Error> {
        if slab.header.list.load(Ordering::Relaxed) != LIST_OPEN {
            return Ok(());
        }
        let prev = slab.header.prev.load(Ordering::Relaxed);
        let next = slab.header.next.load(Ordering::Relaxed);
        match prev {
            0 => self.header.open[class].store(next, Ordering::Relaxed),
            _ => self.slab_at(prev)?.header.next.store(next, Ordering::Relaxed),
        }
        if next != 0 {
            self.slab_at(next)?.header.prev.store(prev, Ordering::Relaxed);
        }
        slab.header.list.store(LIST_NONE, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the lists anew: a dead holder of the page lock may have left them in disorder. The
    /// page lock is held.
    pub(super) fn list_all(&self) -> Result<(), Error> {
        if planted(Bug::ListsTrusted) {
            return Ok(());
        }
        for first in &self.header.open {
            first.store(0, Ordering::Relaxed);
        }
        self.for_each_of_nobody(&mut |slab, class| {
            slab.header.list.store(LIST_NONE, Ordering::Relaxed);
            if slab.free_objects()? >= slab.hysteresis() {
                self.list(slab, class)?;
            }
            Ok(())
        })
    }

    /// Calls `each` with the slabs of nobody, and their classes. The page lock is held.
    fn for_each_of_nobody(
        &self,
        each: &mut dyn FnMut(&Slab<'_>, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for index in 0..self.entries() {
            let entry = self.entry(index)?;
            let Some(generation) = entry.live() else { continue };
            let key = DsaPointer::key_of(index as u32, generation);
            let memory = self.map(key)?;
            let geometry = self.geometry_of(index, memory.len())?;
            let tables = Pages::new(memory, geometry);
            let watermark = entry.watermark.load(Ordering::Acquire);
            tables.for_each_run::<Error>(watermark, &mut |page, run| {
                if matches!(run.kind, Kind::Slab | Kind::Mini) {
                    let mini = run.kind == Kind::Mini;
                    let slab = Slab::new(memory, &geometry, key, page, mini)?;
                    if slab.header.owner.load(Ordering::Acquire) == ORPHAN {
                        each(&slab, slab.class()?)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Checks the lists: who is there, and that nobody is there who isn't in them. The page lock is
    /// held.
    pub(super) fn check_lists(&self) -> Result<(), Error> {
        let mut marked = 0u64;
        self.for_each_of_nobody(&mut |slab, _| {
            marked += u64::from(slab.header.list.load(Ordering::Relaxed) == LIST_OPEN);
            Ok(())
        })?;
        for (class, first) in self.header.open.iter().enumerate() {
            let (mut at, mut before) = (first.load(Ordering::Relaxed), 0);
            while at != 0 {
                let slab = self.slab_at(at)?;
                let header = slab.header;
                if header.owner.load(Ordering::Acquire) != ORPHAN
                    || header.list.load(Ordering::Relaxed) != LIST_OPEN
                    || header.prev.load(Ordering::Relaxed) != before
                    || slab.class()? != class
                    || marked == 0
                {
                    return Err(Corruption::new("the list of slabs with room", at).into());
                }
                marked -= 1;
                (before, at) = (at, header.next.load(Ordering::Relaxed));
            }
        }
        match marked {
            0 => Ok(()),
            _ => Err(Corruption::new("slabs with room that are in no list", marked).into()),
        }
    }
}
