//! Where free objects come from when the hints are used up.
//!
//! In this order: the next window of the current slab; a slab with room of this heap's list; a
//! slab in which others have freed (a bounded look at those that were full); a slab of nobody; a
//! new slab. Before the area grows by a segment, all own slabs are looked at (a mark may have been
//! lost: see `slab`), and the dead's are adopted.
//!
//! Lists are rings linked through the slabs' headers, private in meaning. A slab is the current
//! one, or in one of the two lists of its class.

use core::cell::Cell;

use dsm_core::lock::RawLock;
use dsm_core::planted::{Bug, planted};
use dsm_core::sync::{AtomicU8, Ordering};

use super::Heap;
use crate::area::{Located, Purpose};
use crate::class::SIZES;
use crate::error::{Corruption, Error};
use crate::hints::ClassHints;
use crate::layout::PAGE;
use crate::pointer::DsaPointer;
use crate::slab::{LIST_FULL, LIST_NONE, LIST_PARTIAL, ORPHAN, Slab, WATCHED};

/// Slabs of one page that a heap takes before whole units.
const MINIS: u32 = 4;
/// Objects above a page that are served as runs before a slab is made for them.
const COLD: u16 = 8;
/// Full slabs that are looked at for others' frees before a new one is made.
const LOOK: u32 = 64;
/// Slabs with room that are looked at for being empty, each time.
const TIDY: u32 = 8;

impl<L: RawLock> Heap<'_, L> {
    /// Whether an object of this class is better served by a run of its own for now.
    pub(super) fn is_cold(&self, class: usize) -> bool {
        let hints = &self.local.classes[class];
        if u64::from(SIZES[class]) <= PAGE || hints.slabs.get() != 0 || hints.cold.get() >= COLD {
            return false;
        }
        hints.cold.set(hints.cold.get() + 1);
        true
    }

    /// The slab that a private link means.
    fn slab_at(&self, raw: u64) -> Result<Slab<'_>, Error> {
        match self.area.locate(DsaPointer::from_raw(raw))? {
            Located::Slab(slab) if slab.pointer.raw() == raw => Ok(slab),
            _ => Err(Corruption::new("a link that leads to no slab", raw).into()),
        }
    }

    /// Finds free objects for a class; afterwards its hints have some, unless an error tells why.
    pub(super) fn refill(&self, class: usize, me: u64) -> Result<(), Error> {
        let hints = &self.local.classes[class];
        loop {
            if hints.current.get() != 0 {
                let slab = self.slab_at(hints.current.get())?;
                if self.next_window(&slab, hints, class)? {
                    return Ok(());
                }
                // Full: out of sight until enough of it is free again.
                slab.header.countdown.store(slab.hysteresis() as u16, Ordering::Relaxed);
                hints.current.set(0);
                self.link(&slab, &hints.full, LIST_FULL)?;
                slab.header.owner.store(me | WATCHED, Ordering::Release);
            }
            if hints.partial.get() != 0 {
                let slab = self.slab_at(hints.partial.get())?;
                self.make_current(&slab, hints, me)?;
            } else if !self.look_at_full(hints, me, LOOK, false)? {
                self.new_slab(class, me)?;
            }
        }
    }

    /// Sets the mask to the next window of the current slab that has a free object.
    fn next_window(
        &self,
        slab: &Slab<'_>,
        hints: &ClassHints,
        class: usize,
    ) -> Result<bool, Error> {
        let windows = slab.windows();
        let from = u32::from(slab.header.cursor.load(Ordering::Relaxed));
        for step in 0..windows {
            let window = (from + step) % windows;
            let mask = slab.window(window)?;
            if mask != 0 {
                slab.header.cursor.store(window as u16, Ordering::Relaxed);
                let truth: &AtomicU8 = slab.truth(window * 64)?;
                let size = u32::from(SIZES[class]);
                hints.set_window(mask, slab.object(window * 64), size, truth);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn make_current(&self, slab: &Slab<'_>, hints: &ClassHints, me: u64) -> Result<(), Error> {
        self.unlink(slab, hints)?;
        slab.header.cursor.store(0, Ordering::Relaxed);
        slab.header.owner.store(me, Ordering::Release);
        hints.current.set(slab.pointer.raw());
        Ok(())
    }

    /// Looks at up to `most` full slabs for what others have freed; makes the first one that is
    /// worth it current. With `all`, unmarked ones and single free objects count, too.
    fn look_at_full(
        &self,
        hints: &ClassHints,
        me: u64,
        most: u32,
        all: bool,
    ) -> Result<bool, Error> {
        let first = hints.full.get();
        if first == 0 {
            return Ok(false);
        }
        let mut at = first;
        for _ in 0..most {
            let slab = self.slab_at(at)?;
            let next = slab.header.next.load(Ordering::Relaxed);
            let marked = slab.header.pending.load(Ordering::Relaxed) != 0;
            if marked || all && !planted(Bug::RemoteFreeUnseen) {
                // The mark goes before the bytes are read, so that a later free marks anew.
                slab.header.pending.swap(0, Ordering::AcqRel);
                let enough = if all { 1 } else { slab.hysteresis() };
                if slab.free_objects()? >= enough {
                    self.make_current(&slab, hints, me)?;
                    return Ok(true);
                }
            }
            at = next;
            // The next look starts where this one ended.
            hints.full.set(at);
            if at == first {
                break;
            }
        }
        Ok(false)
    }

    fn new_slab(&self, class: usize, me: u64) -> Result<(), Error> {
        let size = u64::from(SIZES[class]);
        let hints = &self.local.classes[class];
        if self.area.has_orphans(class) {
            let _area = self.area.lock_area(self.participant)?;
            if self.area.adopt(self.participant, Some((self, class)))?.slabs > 0 {
                return Ok(());
            }
        }
        let mini = size <= PAGE && hints.slabs.get() < MINIS;
        let result = self.slab_from_pages(class, me, mini);
        match result {
            // Where there is no room for a unit there may be a page.
            Err(Error::SizeLimit { .. } | Error::Namespace(_) | Error::TooManySegments)
                if !mini && size <= PAGE =>
            {
                self.slab_from_pages(class, me, true)
            }
            result => result,
        }
    }

    fn slab_from_pages(&self, class: usize, me: u64, mini: bool) -> Result<(), Error> {
        let hints = &self.local.classes[class];
        let purpose = Purpose::Slab { class, owner: self.as_owner(me), mini };
        let pages = if mini { 1 } else { crate::layout::UNIT_PAGES };
        let found = Cell::new(false);
        let allocated = self.area.allocate_run(self.participant, pages, purpose, &mut || {
            let adopted = self.area.adopt(self.participant, Some((self, class)))?;
            if adopted.slabs > 0 || self.look_at_full(hints, me, hints.slabs.get(), true)? {
                found.set(true);
                return Err(Error::Busy);
            }
            Ok(adopted.pages > 0)
        });
        match allocated {
            // Objects were found instead: that is what `Busy` meant.
            Err(Error::Busy) if found.get() => Ok(()),
            Err(e) => Err(e),
            Ok(pointer) => {
                hints.slabs.set(hints.slabs.get() + 1);
                hints.current.set(pointer.raw());
                Ok(())
            }
        }
    }

    /// Takes over a slab of nobody. The area lock is held.
    pub(crate) fn inherit(&self, slab: &Slab<'_>, class: usize) -> Result<(), Error> {
        let me = self.local.me.get();
        let hints = &self.local.classes[class];
        slab.header.give_to(self.as_owner(me));
        slab.header.cursor.store(0, Ordering::Relaxed);
        slab.header.list.store(LIST_NONE, Ordering::Relaxed);
        slab.header.pending.swap(0, Ordering::AcqRel);
        hints.slabs.set(hints.slabs.get() + 1);
        if slab.free_objects()? > 0 {
            return self.link(slab, &hints.partial, LIST_PARTIAL);
        }
        slab.header.countdown.store(slab.hysteresis() as u16, Ordering::Relaxed);
        slab.header.owner.store(me | WATCHED, Ordering::Release);
        self.link(slab, &hints.full, LIST_FULL)
    }

    /// A full slab has had enough frees: it is offered again.
    pub(super) fn offer(&self, slab: &Slab<'_>, class: usize, me: u64) -> Result<(), Error> {
        let hints = &self.local.classes[class];
        if slab.header.list.load(Ordering::Relaxed) == LIST_FULL {
            self.unlink(slab, hints)?;
            self.link(slab, &hints.partial, LIST_PARTIAL)?;
        }
        slab.header.owner.store(me, Ordering::Release);
        Ok(())
    }

    /// Puts a slab into a ring, as its last.
    fn link(&self, slab: &Slab<'_>, head: &Cell<u64>, list: u8) -> Result<(), Error> {
        let me = slab.pointer.raw();
        let first = if head.get() == 0 { None } else { Some(self.slab_at(head.get())?) };
        let last = match first {
            None => {
                slab.header.next.store(me, Ordering::Relaxed);
                slab.header.prev.store(me, Ordering::Relaxed);
                head.set(me);
                None
            }
            Some(first) => Some((first, self.slab_at(first.header.prev.load(Ordering::Relaxed))?)),
        };
        if let Some((first, last)) = last {
            slab.header.next.store(first.pointer.raw(), Ordering::Relaxed);
            slab.header.prev.store(last.pointer.raw(), Ordering::Relaxed);
            last.header.next.store(me, Ordering::Relaxed);
            first.header.prev.store(me, Ordering::Relaxed);
        }
        slab.header.list.store(list, Ordering::Relaxed);
        Ok(())
    }

    /// Takes a slab out of its ring, if it is in one.
    fn unlink(&self, slab: &Slab<'_>, hints: &ClassHints) -> Result<(), Error> {
        let head = match slab.header.list.load(Ordering::Relaxed) {
            LIST_PARTIAL => &hints.partial,
            LIST_FULL => &hints.full,
            _ => return Ok(()),
        };
        let next = slab.header.next.load(Ordering::Relaxed);
        if next == slab.pointer.raw() {
            head.set(0);
        } else {
            let prev = self.slab_at(slab.header.prev.load(Ordering::Relaxed))?;
            let after = self.slab_at(next)?;
            prev.header.next.store(next, Ordering::Relaxed);
            after.header.prev.store(prev.pointer.raw(), Ordering::Relaxed);
            if head.get() == slab.pointer.raw() {
                head.set(next);
            }
        }
        slab.header.list.store(LIST_NONE, Ordering::Relaxed);
        Ok(())
    }

    /// Gives up a slab in which nothing is allocated.
    fn give_up(&self, slab: &Slab<'_>, class: usize) -> Result<(), Error> {
        let hints = &self.local.classes[class];
        self.unlink(slab, hints)?;
        if hints.current.get() == slab.pointer.raw() {
            hints.current.set(0);
        }
        hints.purge(slab.pointer, slab.bytes());
        hints.slabs.set(hints.slabs.get().saturating_sub(1));
        if self.area.free_slab(self.participant, slab)? {
            self.area.give_back_empty(self.participant, false)?;
        }
        Ok(())
    }

    /// Looks at a few slabs with room, and gives up those that are empty. Called after many frees;
    /// what goes wrong here is left for the next time.
    #[cold]
    #[inline(never)]
    pub(super) fn tidy(&self, class: usize) {
        let hints = &self.local.classes[class];
        for _ in 0..TIDY {
            let first = hints.partial.get();
            if first == 0 {
                return;
            }
            let Ok(slab) = self.slab_at(first) else { return };
            match slab.is_empty() {
                Ok(true) => {
                    if self.give_up(&slab, class).is_err() {
                        return;
                    }
                }
                Ok(false) => hints.partial.set(slab.header.next.load(Ordering::Relaxed)),
                Err(_) => return,
            }
        }
    }

    /// Calls `each` with every slab of this heap, of the class.
    fn for_each_slab(
        &self,
        class: usize,
        each: &mut dyn FnMut(&Slab<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let hints = &self.local.classes[class];
        if hints.current.get() != 0 {
            each(&self.slab_at(hints.current.get())?)?;
        }
        for list in [&hints.partial, &hints.full] {
            if list.get() == 0 {
                continue;
            }
            let mut at = list.get();
            let last = self.slab_at(at)?.header.prev.load(Ordering::Relaxed);
            for _ in 0..=hints.slabs.get() {
                let slab = self.slab_at(at)?;
                // `each` may take this one out of the ring, or give it to others.
                let next = slab.header.next.load(Ordering::Relaxed);
                each(&slab)?;
                if at == last {
                    break;
                }
                at = next;
            }
        }
        Ok(())
    }

    /// Gives up the empty slabs of a class.
    fn trim_class(&self, class: usize) -> Result<(), Error> {
        self.for_each_slab(class, &mut |slab| {
            if slab.is_empty()? {
                self.give_up(slab, class)?;
            }
            Ok(())
        })
    }

    /// Gives memory back: empty slabs of this heap and of nobody to the pages, empty segments to
    /// the system. Returns how many segments went.
    ///
    /// # Errors
    ///
    /// [`Error::Lock`], [`Error::Namespace`]; what was given back stays given back.
    #[doc(alias = "dsa_trim")]
    pub fn trim(&self) -> Result<u32, Error> {
        self.identify()?;
        for class in 0..SIZES.len() {
            self.trim_class(class)?;
        }
        self.maintain()?;
        self.area.give_back_empty(self.participant, true)
    }

    /// Does what is due: lets go of segments that others have given back, and takes over what
    /// dead participants left (their unpublished objects are freed). A process that is idle for
    /// long calls this now and then, because it keeps mapped, and in memory, what others gave back.
    ///
    /// # Errors
    ///
    /// [`Error::Lock`], [`Error::Namespace`], [`Error::Corrupt`].
    pub fn maintain(&self) -> Result<(), Error> {
        self.identify()?;
        self.area.sync_table()?;
        let _area = self.area.lock_area(self.participant)?;
        self.area.adopt(self.participant, None)?;
        Ok(())
    }

    /// Leaves the area: gives up all slabs of this heap, for others to go on with. Without this
    /// they stay unused until the participant has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Lock`], [`Error::Namespace`], [`Error::Corrupt`]; what was not given up is taken
    /// over by others when the participant has ended.
    pub fn release(self) -> Result<(), Error> {
        self.identify()?;
        let mut result = Ok(());
        for class in 0..SIZES.len() {
            // First what has to be taken out of the lists, then the rest as it is: from then on it
            // may be in other heaps' lists.
            let trimmed = self.trim_class(class);
            let left = self.for_each_slab(class, &mut |slab| {
                // What is not published goes when its owner has ended: the slab must say who that is.
                if slab.has_unpublished()? {
                    return Ok(());
                }
                slab.header.owner.store(ORPHAN, Ordering::Release);
                // Counts as far as it goes: once more would be none.
                let _ = self.area.header().orphans[class].fetch_update(
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                    |left| left.checked_add(1),
                );
                Ok(())
            });
            result = result.and(trimmed).and(left);
        }
        self.local.wipe();
        result
    }
}
