//! The table of names: the registry's own area and hash table, and how they come about.
//!
//! Whoever opens a namespace whose root words are empty builds them: an area with a header and a
//! table in it, then `ROOT_HEADER`, then `ROOT_AREA`, which publishes both, then a pin. One
//! participant at a time builds: its id stands in `ROOT_BUILDER`, and a dead one's may be
//! replaced. Killed before it publishes, the area goes with the dead process. Killed
//! between publishing and pinning: if somebody attached the area meanwhile, he pins it; if nobody
//! did, it goes with the dead process, attaching finds nothing, and the next one builds another.
//! No name can have been entered into it: the builder enters names after the pin, and who else
//! does has it attached.
//!
//! A poisoned entry is one whose last holder died: its state word says what it is all the same, so
//! the poison is cleared by whoever meets it.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::time::Duration;

use dsa_core::DsaPointer;
use dshash_core::{Params, Table, TableHandle};
use dsm_core::handle::{ParticipantId, SegmentHandle};
use dsm_core::namespace;
use dsm_core::participant::Peers;
use dsm_core::sync::Ordering;

use crate::area::RawArea;
use crate::entry::{Entry, Header, MAGIC, ROOT_AREA, ROOT_BUILDER, ROOT_HEADER, Shape, State};
use crate::error::Error;
use crate::error::context::{Context, Refusal};
use crate::error::kind::ErrorKind;
use crate::name::NameKey;
use crate::process::Attachment;
use crate::stable::Stable;
use crate::table::Store;
use crate::thread;

/// Locks of the table of names: it is written when names come and go only.
pub(crate) const PARTITIONS: u32 = 8;
/// Identifies the table's types: changes with the layout of [`Entry`].
pub(crate) const TYPE_TAG: u64 = MAGIC;
/// What errors call it.
const LABEL: &str = "the table of names";
/// How long to wait for another one who builds.
const NAP: Duration = Duration::from_millis(2);

type Session<'n> = dshash_core::Session<'n, NameKey, Entry, Store>;

/// The table of names, as this process has it.
pub(crate) struct Names {
    /// Borrows from `area`.
    table: ManuallyDrop<Table<NameKey, Entry, Store>>,
    /// In `area`.
    header: NonNull<Header>,
    area: Stable<RawArea>,
}

// SAFETY: the header consists of atomics, and of words that never change.
unsafe impl Send for Names {}
// SAFETY: as above.
unsafe impl Sync for Names {}

/// What a name stood for when it was looked at.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) state: State,
    pub(crate) handle: u64,
    pub(crate) table: u64,
    pub(crate) shape: Shape,
}

/// What becomes of an entry that was looked at under its lock.
pub(crate) enum Verdict<R> {
    Keep(R),
    Delete(R),
}

/// Lets go of the right to build.
struct Building<'h>(&'h Attachment);

impl Drop for Building<'_> {
    fn drop(&mut self) {
        self.0.namespace().root(ROOT_BUILDER).store(0, Ordering::Release);
    }
}

impl Names {
    /// Finds the table of names, or builds it.
    pub(crate) fn open(home: &Attachment) -> Result<Self, Error> {
        let root = |index| home.namespace().root(index);
        loop {
            let handle = root(ROOT_AREA).load(Ordering::Acquire);
            if handle != 0 {
                if let Some(names) = Self::attach(home, handle)? {
                    return Ok(names);
                }
            }
            let Some(building) = Self::claim(home)? else {
                std::thread::sleep(NAP);
                continue;
            };
            if root(ROOT_AREA).load(Ordering::Acquire) == handle {
                let names = Self::build(home)?;
                drop(building);
                return Ok(names);
            }
        }
    }

    /// Takes the right to build; `None` while somebody else who lives has it.
    fn claim(home: &Attachment) -> Result<Option<Building<'_>>, Error> {
        let me = home.participant()?.id().ok_or(ErrorKind::Forked)?;
        let word = home.namespace().root(ROOT_BUILDER);
        let builder = word.load(Ordering::Acquire);
        if ParticipantId::unpack(builder).is_some_and(|id| !home.namespace().is_dead(id)) {
            return Ok(None);
        }
        let won =
            word.compare_exchange(builder, me.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok();
        Ok(won.then(|| Building(home)))
    }

    fn build(home: &Attachment) -> Result<Self, Error> {
        let area = Stable::new(RawArea::create(home, LABEL, &dsa_core::Options::default())?);
        let mut unfinished = Unfinished { home, area: Some(area) };
        let area = unfinished.area();
        let heap = thread::heap(home, area)?;
        let params = Params { partitions: PARTITIONS, type_tag: TYPE_TAG };
        let table = Table::create(area.core_static(), heap, &params).of(home, LABEL)?;
        let layout = std::alloc::Layout::new::<Header>();
        let pointer = heap.allocate_layout(layout).of(home, LABEL)?;
        let at = area.core().try_resolve_range(pointer, size_of::<Header>());
        let header = at.of(home, LABEL)?.cast::<Header>();
        // SAFETY: allocated just now for a header, and nobody else knows it.
        unsafe { header.write(Header::new(table.handle().0.raw())) };
        let handle = area.handle();
        home.namespace().root(ROOT_HEADER).store(pointer.raw(), Ordering::Release);
        home.namespace().root(ROOT_AREA).store(handle, Ordering::Release);
        let area = unfinished.keep();
        let names = Self { table: ManuallyDrop::new(table), header, area };
        names.pin(home)?;
        Ok(names)
    }

    /// `None` if the area is gone: its builder died before it was pinned.
    fn attach(home: &Attachment, handle: u64) -> Result<Option<Self>, Error> {
        let Some(area) = RawArea::attach(home, LABEL, handle)? else { return Ok(None) };
        let mut unfinished = Unfinished { home, area: Some(Stable::new(area)) };
        let area = unfinished.area();
        let pointer =
            DsaPointer::from_raw(home.namespace().root(ROOT_HEADER).load(Ordering::Acquire));
        let at = match area.core().try_resolve_range(pointer, size_of::<Header>()) {
            Ok(at) => at.cast::<Header>(),
            Err(dsa_core::Error::InvalidPointer(_)) => {
                return Err(home.damaged("the header's place"));
            }
            Err(e) => return Err(e.of(home, LABEL)),
        };
        let aligned = Some(at).filter(|at| at.is_aligned());
        let header = aligned.ok_or_else(|| home.damaged("the header's place"))?;
        // SAFETY: inside the mapped area, aligned; any bytes are a header.
        let (magic, table) = unsafe { (*header.as_ptr()).parts() };
        if magic != MAGIC {
            return Err(home.damaged("the header's magic"));
        }
        let params = Params { partitions: PARTITIONS, type_tag: TYPE_TAG };
        let table = TableHandle(DsaPointer::from_raw(table));
        // SAFETY: the header names the table that was built with it; it goes with the area only.
        let table = unsafe { Table::attach(area.core_static(), table, &params) }.of(home, LABEL)?;
        let area = unfinished.keep();
        let names = Self { table: ManuallyDrop::new(table), header, area };
        names.pin(home)?;
        Ok(Some(names))
    }

    /// Pins the area, unless somebody has.
    fn pin(&self, home: &Attachment) -> Result<(), Error> {
        let Some(handle) = SegmentHandle::from_raw(self.area.handle()) else {
            return Err(home.damaged("the area's handle"));
        };
        match home.namespace().pin_segment(handle) {
            Ok(()) | Err(namespace::Error::Pinned(true)) => Ok(()),
            Err(e) => Err(e.of(home, LABEL)),
        }
    }

    /// Detaches; in a forked child, does nothing.
    pub(crate) fn release(&mut self, home: &Attachment) {
        if home.is_ours() {
            // SAFETY: called once, by the drop of what holds this; before the area goes.
            unsafe { ManuallyDrop::drop(&mut self.table) };
            self.area.release(home);
        }
    }

    #[inline]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: in the mapped area, which this keeps; atomics, and words that never change.
        unsafe { self.header.as_ref() }
    }

    fn session(&self, home: &Attachment) -> Result<Session<'_>, Error> {
        let heap = thread::heap(home, &self.area)?;
        // SAFETY: it lives as long as the thread and the area, which this keeps attached.
        let heap = unsafe { &*std::ptr::from_ref(heap) };
        self.table.bind(heap).of(home, LABEL)
    }

    /// What a name stands for.
    pub(crate) fn look(&self, home: &Attachment, key: &NameKey) -> Result<Option<Seen>, Error> {
        let session = self.session(home)?;
        loop {
            match session.find(key) {
                Ok(Some(entry)) => return Seen::of(&entry, home).map(Some),
                Ok(None) => return Ok(None),
                Err(dshash_core::Error::Poisoned) => Self::unpoison(&session, home, key)?,
                Err(e) => return Err(e.of(home, LABEL)),
            }
        }
    }

    /// Looks at an entry under its lock, to change its state or to delete it; `None` if there is
    /// none.
    pub(crate) fn modify<R>(
        &self,
        home: &Attachment,
        key: &NameKey,
        change: impl FnOnce(&Entry) -> Result<Verdict<R>, Error>,
    ) -> Result<Option<R>, Error> {
        let session = self.session(home)?;
        let Some(mut guard) = session.find_poisoned(key).of(home, LABEL)? else {
            return Ok(None);
        };
        guard.clear_poison();
        match change(&guard)? {
            Verdict::Keep(result) => Ok(Some(result)),
            Verdict::Delete(result) => {
                guard.delete().of(home, LABEL)?;
                Ok(Some(result))
            }
        }
    }

    /// As [`modify`](Self::modify), but inserts an entry if there is none: that is `None` then.
    pub(crate) fn upsert<R>(
        &self,
        home: &Attachment,
        key: &NameKey,
        make: impl FnOnce() -> Entry,
        change: impl FnOnce(&Entry) -> Result<Verdict<R>, Error>,
    ) -> Result<Option<R>, Error> {
        let session = self.session(home)?;
        let entry = loop {
            match session.entry(key) {
                Err(dshash_core::Error::Poisoned) => Self::unpoison(&session, home, key)?,
                outcome => break outcome.of(home, LABEL)?,
            }
        };
        match entry {
            dshash_core::Entry::Vacant(place) => {
                place.insert(make()).of(home, LABEL)?.release();
                Ok(None)
            }
            dshash_core::Entry::Occupied(entry) => {
                let guard = entry.into_guard();
                match change(&guard)? {
                    Verdict::Keep(result) => Ok(Some(result)),
                    Verdict::Delete(result) => {
                        guard.delete().of(home, LABEL)?;
                        Ok(Some(result))
                    }
                }
            }
        }
    }

    /// Shows all names, each as it was at one moment.
    pub(crate) fn scan(
        &self,
        home: &Attachment,
        show: &mut dyn FnMut(&NameKey, Seen),
    ) -> Result<(), Error> {
        let session = self.session(home)?;
        let mut poisoned = Vec::new();
        let mut scan = session.scan();
        while let Some(entry) = scan.next().of(home, LABEL)? {
            match entry.value() {
                Ok(value) => show(entry.key(), Seen::of(value, home)?),
                Err(_) => poisoned.push(*entry.key()),
            }
        }
        drop(scan);
        for key in poisoned {
            if let Some(seen) = self.look(home, &key)? {
                show(&key, seen);
            }
        }
        Ok(())
    }

    fn unpoison(session: &Session<'_>, home: &Attachment, key: &NameKey) -> Result<(), Error> {
        session.repair(key, |_| {}).map(drop).of(home, LABEL)
    }
}

impl Seen {
    fn of(entry: &Entry, home: &Attachment) -> Result<Self, Error> {
        let state = entry.state().ok_or_else(|| home.damaged("a name's state"))?;
        Ok(Self { state, handle: entry.handle(), table: entry.table(), shape: entry.shape })
    }
}

/// An area that is let go of unless it is kept.
struct Unfinished<'h> {
    home: &'h Attachment,
    area: Option<Stable<RawArea>>,
}

impl Unfinished<'_> {
    fn area(&self) -> &RawArea {
        self.area.as_deref().expect("kept at the end only")
    }

    fn keep(&mut self) -> Stable<RawArea> {
        self.area.take().expect("kept once")
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(area) = &mut self.area {
            area.release(self.home);
        }
    }
}
