//! Where free objects come from when the hints are used up.
//!
//! In this order: the next window of the current slab; a slab with room of this heap's; a slab with
//! room of nobody's; a new slab. Before the area grows by a segment, or refuses, this heap gives up
//! what it has of any class that is empty, and what the dead left is looked for.
//!
//! When the current slab is full the heap knows no free object of the class at all, so that it can
//! let go of the slab by one store. Others (and itself) count then what they free there, and
//! whoever frees enough of it, or the last object, looks: see `area::nobodys`.
//!
//! The slabs with room are a ring linked through their headers, private in meaning. They are those
//! in which this heap has freed, since a full slab goes back to its last owner when that frees in
//! it; beyond some it doesn't, for what a heap has is out of others' reach.

use core::cell::Cell;

use dsm_core::lock::RawLock;
use dsm_core::sync::{AtomicU8, Ordering};

use super::Heap;
use crate::area::{Located, Purpose};
use crate::class::SIZES;
use crate::error::Error;
use crate::hints::ClassHints;
use crate::layout::PAGE;
use crate::pointer::DsaPointer;
use crate::slab::{LIST_NONE, LIST_PARTIAL, Slab};

/// Slabs of one page that a heap takes before whole units.
const MINIS: u32 = 4;
/// Slabs with room that are looked at whenever one was found empty.
const TIDY: u32 = 4;
/// Objects above a page that are served as runs before a slab is made for them.
const COLD: u16 = 8;

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

    /// Finds free objects for a class; afterwards its hints have some, unless an error tells why.
    pub(super) fn refill(&self, class: usize, me: u64) -> Result<(), Error> {
        let hints = &self.local.classes[class];
        loop {
            if hints.current.get() != 0 {
                let slab = self.area.slab_at(hints.current.get())?;
                if self.next_window(&slab, hints, class)? {
                    return Ok(());
                }
                // Full, and no hint is left: it is nobody's from now on.
                hints.current.set(0);
                hints.slabs.set(hints.slabs.get().saturating_sub(1));
                slab.let_go(slab.count());
            }
            if hints.partial.get() != 0 {
                let slab = self.area.slab_at(hints.partial.get())?;
                self.unlink(&slab, hints)?;
                slab.header.cursor.store(0, Ordering::Relaxed);
                hints.current.set(slab.pointer.raw());
            } else if !self.take_open(class, me)? {
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

    /// Takes a slab of nobody in which there is room, if there is one.
    fn take_open(&self, class: usize, me: u64) -> Result<bool, Error> {
        let hints = &self.local.classes[class];
        let taken = self.area.take_open(self.participant, class, self.as_owner(me))?;
        let Some(slab) = taken else { return Ok(false) };
        slab.header.cursor.store(0, Ordering::Relaxed);
        hints.slabs.set(hints.slabs.get() + 1);
        hints.current.set(slab.pointer.raw());
        Ok(true)
    }

    fn new_slab(&self, class: usize, me: u64) -> Result<(), Error> {
        let size = u64::from(SIZES[class]);
        let mini = size <= PAGE && self.local.classes[class].made.get() < MINIS;
        let result = self.slab_from_pages(class, me, mini);
        match result {
            // Where there is no room for a unit there may be a page.
            Err(e) if e.is_shortage() && !mini && size <= PAGE => {
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
            let emptied = self.give_up_empty()?;
            let adopted = self.area.adopt(self.participant)?;
            if self.take_open(class, me)? {
                found.set(true);
                return Err(Error::Busy);
            }
            Ok(emptied || adopted > 0)
        });
        match allocated {
            // Objects were found instead: that is what `Busy` meant.
            Err(Error::Busy) if found.get() => Ok(()),
            Err(e) => Err(e),
            Ok(pointer) => {
                hints.slabs.set(hints.slabs.get() + 1);
                hints.made.set(hints.made.get().saturating_add(1));
                hints.current.set(pointer.raw());
                Ok(())
            }
        }
    }

    /// Enters a slab with room that has become this heap's.
    pub(super) fn welcome(&self, slab: &Slab<'_>) -> Result<(), Error> {
        let hints = &self.local.classes[slab.class()?];
        hints.slabs.set(hints.slabs.get() + 1);
        slab.header.cursor.store(0, Ordering::Relaxed);
        self.link(slab, hints)
    }

    /// Puts a slab into the ring of those with room, as its last.
    fn link(&self, slab: &Slab<'_>, hints: &ClassHints) -> Result<(), Error> {
        let me = slab.pointer.raw();
        let head = &hints.partial;
        if head.get() == 0 {
            slab.header.next.store(me, Ordering::Relaxed);
            slab.header.prev.store(me, Ordering::Relaxed);
            head.set(me);
        } else {
            let first = self.area.slab_at(head.get())?;
            let last = self.area.slab_at(first.header.prev.load(Ordering::Relaxed))?;
            slab.header.next.store(first.pointer.raw(), Ordering::Relaxed);
            slab.header.prev.store(last.pointer.raw(), Ordering::Relaxed);
            last.header.next.store(me, Ordering::Relaxed);
            first.header.prev.store(me, Ordering::Relaxed);
        }
        slab.header.list.store(LIST_PARTIAL, Ordering::Relaxed);
        Ok(())
    }

    /// Takes a slab out of the ring, if it is there.
    fn unlink(&self, slab: &Slab<'_>, hints: &ClassHints) -> Result<(), Error> {
        if slab.header.list.load(Ordering::Relaxed) != LIST_PARTIAL {
            return Ok(());
        }
        let head = &hints.partial;
        let next = slab.header.next.load(Ordering::Relaxed);
        if next == slab.pointer.raw() {
            head.set(0);
        } else {
            let prev = self.area.slab_at(slab.header.prev.load(Ordering::Relaxed))?;
            let after = self.area.slab_at(next)?;
            prev.header.next.store(next, Ordering::Relaxed);
            after.header.prev.store(prev.pointer.raw(), Ordering::Relaxed);
            if head.get() == slab.pointer.raw() {
                head.set(next);
            }
        }
        slab.header.list.store(LIST_NONE, Ordering::Relaxed);
        Ok(())
    }

    /// Gives up a slab in which nothing is allocated. True if its segment is one empty segment too
    /// many.
    fn give_up(&self, slab: &Slab<'_>, class: usize) -> Result<bool, Error> {
        let hints = &self.local.classes[class];
        self.unlink(slab, hints)?;
        if hints.current.get() == slab.pointer.raw() {
            hints.current.set(0);
        }
        hints.purge(slab.pointer, slab.bytes());
        hints.slabs.set(hints.slabs.get().saturating_sub(1));
        hints.made.set(if hints.slabs.get() == 0 { 0 } else { hints.made.get().saturating_sub(1) });
        self.area.free_slab(self.participant, slab)
    }

    /// Gives up the slab of the object `pointer`, which was just freed, if it is empty, and not the
    /// one that this heap allocates from. It is this heap's. What goes wrong here is left to those
    /// who look for memory.
    #[cold]
    #[inline(never)]
    pub(super) fn tidy(&self, pointer: DsaPointer) {
        let _ = self.give_up_if_empty(pointer);
    }

    fn give_up_if_empty(&self, pointer: DsaPointer) -> Result<(), Error> {
        let Located::Slab(slab) = self.area.locate(pointer)? else { return Ok(()) };
        let class = slab.class()?;
        let hints = &self.local.classes[class];
        let index = slab.index_of(pointer).unwrap_or(0);
        if slab.pointer.raw() == hints.current.get()
            || !slab.looks_empty(index)?
            || !slab.is_empty()?
        {
            return Ok(());
        }
        let mut surplus = self.give_up(&slab, class)?;
        // There is room in the magazine now, and what goes there is not looked at here: neither was
        // what went there before.
        for _ in 0..TIDY {
            let first = hints.partial.get();
            if first == 0 {
                break;
            }
            let slab = self.area.slab_at(first)?;
            if slab.looks_empty(0)? && slab.is_empty()? {
                surplus |= self.give_up(&slab, class)?;
            } else {
                hints.partial.set(slab.header.next.load(Ordering::Relaxed));
            }
        }
        if surplus {
            self.area.give_back_empty(self.participant, false)?;
        }
        Ok(())
    }

    /// Calls `each` with every slab of this heap, of the class.
    fn for_each_slab(
        &self,
        class: usize,
        each: &mut dyn FnMut(&Slab<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let hints = &self.local.classes[class];
        if hints.current.get() != 0 {
            each(&self.area.slab_at(hints.current.get())?)?;
        }
        let mut at = hints.partial.get();
        if at == 0 {
            return Ok(());
        }
        let last = self.area.slab_at(at)?.header.prev.load(Ordering::Relaxed);
        for _ in 0..=hints.slabs.get() {
            let slab = self.area.slab_at(at)?;
            // `each` may take this one out of the ring, or give it to others.
            let next = slab.header.next.load(Ordering::Relaxed);
            each(&slab)?;
            if at == last {
                break;
            }
            at = next;
        }
        Ok(())
    }

    /// Gives up the empty slabs of a class. True if there were some.
    fn trim_class(&self, class: usize) -> Result<bool, Error> {
        let mut emptied = false;
        self.for_each_slab(class, &mut |slab| {
            if slab.looks_empty(0)? && slab.is_empty()? {
                self.give_up(slab, class)?;
                emptied = true;
            }
            Ok(())
        })?;
        Ok(emptied)
    }

    /// Gives up all empty slabs, of every class. True if there were some.
    pub(super) fn give_up_empty(&self) -> Result<bool, Error> {
        let mut emptied = false;
        for class in 0..SIZES.len() {
            emptied |= self.trim_class(class)?;
        }
        Ok(emptied)
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
        self.give_up_empty()?;
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
        self.area.adopt(self.participant)?;
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
            // First what has to be taken out of the ring, then the rest as it is: from then on it
            // may be others'.
            let trimmed = self.trim_class(class).map(drop);
            let left = self.for_each_slab(class, &mut |slab| {
                slab.let_go(slab.count() - slab.free_objects()?);
                self.area.tend(self.participant, slab.pointer, false, &|_, _| None)?;
                Ok(())
            });
            result = result.and(trimmed).and(left);
        }
        self.local.wipe();
        result
    }
}
