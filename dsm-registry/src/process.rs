//! A process attached to a namespace: once for each place and name, however many handles.
//!
//! ```text
//! ATTACHED (static)     (identity of the place, name) -> Weak<Attachment>
//! Registry handles -> Shared -> Attachment <- objects <- handles of segments, areas, tables
//! ```
//!
//! An `Attachment` owns the connection, the namespace opened on it, the registry's own area and
//! table, and the list of objects that this process has attached. Everything that a user holds
//! keeps it alive; when the last is dropped the process leaves the namespace.
//!
//! **Borrowed from itself.** The namespace borrows from the connection and from its local tables, and
//! the registry's area and table from the namespace. All of them are on the heap ([`Stable`]),
//! so that they stay where they are, are handed out with the lifetime of `&self` only, and are dropped in the
//! opposite order by `Drop`.
//!
//! **Fork.** A forked child finds the birthmark wiped: every call through an old handle is
//! [`ErrorKind::Forked`], dropping the handle touches nothing shared, and `open` attaches anew.
//! What the parent had attached stays mapped in the child. A thread of the parent's, which the
//! child does not have, may have been anywhere when it was forked: inside of `open`, with a mutex
//! locked, or changing a map. So a child has an `ATTACHED` of its own ([`PerProcess`]), looks whose
//! an attachment is before it takes any lock of it, and leaks its parent's maps instead of dropping
//! them.
//!
//! **Removed behind our back** (`rm /dev/shm/...`). A process whose control object has lost its
//! name goes on with what it has, beside a second namespace that others have under that name. It
//! can't join the two, but it says so ([`ErrorKind::NamespaceUnlinked`]) where it is about to share
//! something new: when the namespace is opened again, when a name is looked up that it doesn't know
//! yet, and when it reaps.
//!
//! **Declared dead.** A process that others have declared dead finds every call through an old
//! handle [`ErrorKind::DeclaredDead`], and `open` attaches anew beside what is left of it.

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64 as LocalU64, Ordering as LocalOrdering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use dsm_core::error::ProviderFailure;
use dsm_core::handle::{ParticipantId, SegmentHandle};
use dsm_core::namespace::{self, Discard, LocalSegment, Namespace, NamespaceConfig, ProcessLocal};
use dsm_core::participant::{Participant, Peers};
use dsm_core::sync::Ordering;

use crate::area::AreaObject;
use crate::entry::Header;
use crate::error::Error;
use crate::error::context::{Context, Refusal};
use crate::error::kind::ErrorKind;
use crate::fork::{PerProcess, Token};
use crate::names::Names;
use crate::objects::Objects;
use crate::platform::{Connection, Platform};
use crate::reaper::Watch;
use crate::registry::{Registry, Shared};
use crate::segment::SegmentObject;
use crate::stable::Stable;
use crate::thread;

/// How a namespace is to be opened.
pub(crate) struct Settings {
    pub(crate) namespace: String,
    pub(crate) mode: u32,
    pub(crate) config: NamespaceConfig,
    pub(crate) initialiser_patience: Option<Duration>,
}

/// What this process has open in one place and under one name.
#[derive(Default)]
struct Open {
    attachment: Weak<Attachment>,
    shared: Weak<Shared>,
}

/// By the identity of the place, and the name.
type Attached = Mutex<HashMap<(String, String), Arc<Mutex<Open>>>>;

/// Opens a namespace, or finds it open.
pub(crate) fn open(platform: &dyn Platform, settings: Settings) -> Result<Registry, Error> {
    static ATTACHED: PerProcess<Attached> = PerProcess::new();
    // The place is looked up first: what it is called may mean another one by now, or be one of
    // several names of the same.
    let way = Way::connect(platform, &settings)?;
    let all = ATTACHED.get().map_err(|e| way.error(e.into()))?;
    let key = (way.identity().to_owned(), settings.namespace.clone());
    let slot = {
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, open| {
            Arc::strong_count(open) > 1
                || open.lock().is_ok_and(|open| open.attachment.strong_count() > 0)
        });
        Arc::clone(all.entry(key).or_default())
    };
    let mut open = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = open.shared.upgrade().filter(|shared| shared.home.is_usable()) {
        shared.home.confirm_name()?;
        return Ok(Registry { shared });
    }
    let attachment = match open.attachment.upgrade().filter(|home| home.is_usable()) {
        Some(attachment) => {
            attachment.confirm_name()?;
            attachment
        }
        None => Attachment::open(way, settings)?,
    };
    let shared = Arc::new(Shared::new(Arc::clone(&attachment)));
    *open = Open { attachment: Arc::downgrade(&attachment), shared: Arc::downgrade(&shared) };
    Ok(Registry { shared })
}

/// A connection to a namespace, not opened yet.
struct Way {
    name: String,
    place: String,
    connection: Connection,
}

impl Way {
    fn connect(platform: &dyn Platform, settings: &Settings) -> Result<Self, Error> {
        let (name, place) = (settings.namespace.clone(), platform.place());
        match platform.connect(&name, settings.mode) {
            Ok(connection) => Ok(Self { name, place, connection }),
            Err(e) => Err(error_of(&name, &place, e.into())),
        }
    }

    /// Which place it has led to.
    fn identity(&self) -> &str {
        self.connection.identity.as_deref().unwrap_or(&self.place)
    }

    fn error(&self, error: namespace::Error) -> Error {
        error_of(&self.name, &self.place, error)
    }
}

fn error_of(name: &str, place: &str, error: namespace::Error) -> Error {
    Error::from_namespace(name, place, &|| format!("namespace {name:?}"), error)
}

/// The memory that a namespace borrows from; stays where it is while boxed.
struct Base {
    connection: Connection,
    token: Token,
}

/// A namespace that this process has open; see the module's essay.
pub(crate) struct Attachment {
    number: u64,
    name: Box<str>,
    place: Box<str>,
    initialiser_patience: Option<Duration>,
    tables: ManuallyDrop<Tables>,
    me: Weak<Attachment>,
    /// Borrows from `parts`, and is let go of before it.
    names: OnceLock<Names>,
    parts: Parts,
}

/// What changes under mutexes of this process; leaked in a forked child, in which it may be half
/// changed for ever.
#[derive(Default)]
struct Tables {
    segments: Objects<SegmentObject>,
    areas: Objects<AreaObject>,
    area_indexes: Indexes,
}

/// Small numbers for the areas of an attachment, each given out to one at a time.
#[derive(Default)]
pub(crate) struct Indexes(Mutex<(Vec<usize>, usize)>);

impl Indexes {
    pub(crate) fn take(&self) -> usize {
        let (free, next) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().unwrap_or_else(|| {
            *next += 1;
            *next - 1
        })
    }

    pub(crate) fn give_back(&self, index: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.push(index);
    }
}

/// A namespace opened by this process, and what it borrows from.
struct Parts {
    /// Borrows from `local` and `base`.
    namespace: ManuallyDrop<Stable<Namespace<'static>>>,
    /// Borrows from `base` and `records`.
    local: ManuallyDrop<Stable<ProcessLocal<'static>>>,
    /// Lent to `local`.
    records: ManuallyDrop<Stable<[LocalSegment]>>,
    base: ManuallyDrop<Stable<Base>>,
}

impl Parts {
    fn open(way: Way, config: &NamespaceConfig) -> Result<Self, Error> {
        let Way { name, place, connection } = way;
        let fail = |e| error_of(&name, &place, e);
        // Before so many records are made.
        config.check().map_err(fail)?;
        let token = Token::new().map_err(|e| fail(e.into()))?;
        let base = Stable::new(Base { connection, token });
        // SAFETY: kept beside the namespace, and dropped after it; as all that follows.
        let borrowed = unsafe { base.forever() };
        let mut count = config.max_segments;
        loop {
            let records: Box<[LocalSegment]> = (0..count).map(|_| LocalSegment::new()).collect();
            let (records, word) = (Stable::from(records), borrowed.token.word());
            // SAFETY: as above; lent to this alone.
            let local = Stable::new(ProcessLocal::new(word, unsafe { records.lend() }));
            // SAFETY: as above.
            match borrowed.connection.open(config, unsafe { local.forever() }) {
                Ok((namespace, _)) => {
                    return Ok(Self {
                        namespace: ManuallyDrop::new(Stable::new(namespace)),
                        local: ManuallyDrop::new(local),
                        records: ManuallyDrop::new(records),
                        base: ManuallyDrop::new(base),
                    });
                }
                Err(namespace::Error::LocalTooSmall(_, needs)) if needs > count => count = needs,
                Err(e) => return Err(fail(e)),
            }
        }
    }

    fn is_ours(&self) -> bool {
        self.base.token.is_ours()
    }

    /// Leaves the namespace, as dropping this does, and says what came of it.
    fn leave(self) -> Result<(), namespace::Error> {
        ManuallyDrop::new(self).let_go()
    }

    /// Leaves the namespace; in a forked child, does nothing. Called once.
    fn let_go(&mut self) -> Result<(), namespace::Error> {
        if !self.is_ours() {
            return Ok(());
        }
        // SAFETY: taken here only.
        let namespace = unsafe { ManuallyDrop::take(&mut self.namespace) };
        let left = self.base.connection.memory.leave(namespace.into_inner());
        // SAFETY: dropped here only, after what borrows from it.
        unsafe { ManuallyDrop::drop(&mut self.local) };
        // SAFETY: as above.
        unsafe { ManuallyDrop::drop(&mut self.records) };
        // SAFETY: as above.
        unsafe { ManuallyDrop::drop(&mut self.base) };
        left
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // What can't be left is cleaned by the next one to open the namespace.
        let _ = self.let_go();
    }
}

/// Removes a control object that nobody can enter; returns whether there was one.
pub(crate) fn discard(
    platform: &dyn Platform,
    settings: &Settings,
    which: Discard,
) -> Result<bool, Error> {
    let way = Way::connect(platform, settings)?;
    way.connection.discard(settings.config.patience, which).map_err(|e| way.error(e))
}

/// Enters a namespace, beside whatever else this process has open there, and leaves it again; an
/// error also if something of it stays that should have gone.
pub(crate) fn visit(
    platform: &dyn Platform,
    settings: Settings,
    enter: impl FnOnce(&Namespace<'_>) -> Result<(), namespace::Error>,
) -> Result<(), Error> {
    let way = Way::connect(platform, &settings)?;
    let place = way.place.clone();
    let parts = Parts::open(way, &settings.config)?;
    let entered = enter(&parts.namespace);
    let left = parts.leave();
    entered.and(left).map_err(|e| error_of(&settings.namespace, &place, e))
}

impl Attachment {
    fn open(way: Way, settings: Settings) -> Result<Arc<Self>, Error> {
        static NUMBERS: LocalU64 = LocalU64::new(1);
        let place = way.place.as_str().into();
        let parts = Parts::open(way, &settings.config)?;
        let attachment = Arc::new_cyclic(|me| Self {
            number: NUMBERS.fetch_add(1, LocalOrdering::Relaxed),
            name: settings.namespace.into(),
            place,
            initialiser_patience: settings.initialiser_patience,
            tables: ManuallyDrop::default(),
            me: Weak::clone(me),
            names: OnceLock::new(),
            parts,
        });
        let names = Names::open(&attachment)?;
        let _ = attachment.names.set(names);
        Ok(attachment)
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn initialiser_patience(&self) -> Option<Duration> {
        self.initialiser_patience
    }

    /// What hears of the death of other processes.
    pub(crate) fn make_watch(&self) -> Result<Box<dyn Watch>, ProviderFailure> {
        (self.parts.base.connection.watch)()
    }

    /// The segments that this process has attached.
    pub(crate) fn segments(&self) -> &Objects<SegmentObject> {
        &self.tables.segments
    }

    /// The areas that this process has attached, those of tables included.
    pub(crate) fn areas(&self) -> &Objects<AreaObject> {
        &self.tables.areas
    }

    pub(crate) fn area_indexes(&self) -> &Indexes {
        &self.tables.area_indexes
    }

    pub(crate) fn weak(&self) -> Weak<Self> {
        Weak::clone(&self.me)
    }

    pub(crate) fn namespace(&self) -> &Namespace<'static> {
        &self.parts.namespace
    }

    /// For things that are kept beside an `Arc` of this, and dropped before it.
    pub(crate) fn namespace_static(&self) -> &'static Namespace<'static> {
        // SAFETY: callers keep the attachment alive as long as they use it, as said above.
        unsafe { self.parts.namespace.forever() }
    }

    /// False in a forked child.
    #[inline]
    pub(crate) fn is_ours(&self) -> bool {
        self.parts.is_ours()
    }

    /// False also in a process that others declared dead.
    fn is_usable(&self) -> bool {
        self.is_ours() && !self.namespace().is_declared_dead()
    }

    pub(crate) fn check_fork(&self) -> Result<(), Error> {
        if self.is_ours() { Ok(()) } else { Err(ErrorKind::Forked.into()) }
    }

    /// Makes sure that the namespace is still the one of its name: others that open it would get
    /// another one otherwise, and not what this process has. What can't be seen now is taken to be
    /// as it was.
    pub(crate) fn confirm_name(&self) -> Result<(), Error> {
        self.check_fork()?;
        // Who was declared dead is told that: its namespace may have gone as it should.
        self.namespace().confirm().of(self, "a look at its name")?;
        match self.parts.base.connection.memory.is_named(self.namespace()) {
            Ok(false) => {
                let (namespace, place) = (self.name.clone(), self.place.clone());
                Err(ErrorKind::NamespaceUnlinked { namespace, place }.into())
            }
            Ok(true) | Err(_) => Ok(()),
        }
    }

    /// The calling thread's participant.
    #[inline]
    pub(crate) fn participant(&self) -> Result<&Participant<'static>, Error> {
        thread::participant(self)
    }

    /// The table of names.
    #[inline]
    pub(crate) fn names(&self) -> &Names {
        // Set before anybody but `open` sees the attachment.
        self.names.get().expect("an open attachment")
    }

    #[inline]
    pub(crate) fn header(&self) -> &Header {
        self.names().header()
    }

    /// Tells those who wait for a name that something changed.
    pub(crate) fn wake(&self) {
        let wake = &self.header().wake;
        wake.fetch_add(1, Ordering::AcqRel);
        self.namespace().env().wake_all(wake);
    }

    /// Sweeps the dead, and wakes those who wait for a name: it may be a dead one's turn.
    pub(crate) fn reap(&self) -> Result<u32, namespace::Error> {
        let freed = self.namespace().reap()?;
        if freed > 0 {
            self.wake();
        }
        Ok(freed)
    }

    /// Unpins what an entry names, if anything; it goes with the last process that has it.
    pub(crate) fn release_object(&self, handle: u64) -> Result<(), Error> {
        let Some(handle) = SegmentHandle::from_raw(handle) else { return Ok(()) };
        match self.namespace().unpin_segment(handle) {
            // Died before it was pinned, or after it was unpinned. Or unpinned now, and left for
            // the next reaper to remove.
            Ok(())
            | Err(
                namespace::Error::Pinned(_)
                | namespace::Error::NoSuchSegment(_)
                | namespace::Error::Provider(_),
            ) => Ok(()),
            Err(e) => Err(e.of(self, "an unpinned segment")),
        }
    }

    /// Process id of a participant, 0 if unknown.
    pub(crate) fn process_of(&self, who: ParticipantId) -> u64 {
        self.namespace().process_of(who).map_or(0, |proof| proof.pid)
    }

    /// Why a segment can't be mapped of what this process has attached, if one can't.
    pub(crate) fn unmapped(&self) -> Option<Error> {
        let refused = std::cell::Cell::new(None);
        self.areas().any(|area| match area.core().attach_all() {
            Err(error @ dsa_core::Error::Namespace(_)) => {
                refused.set(Some(error.of(self, area.raw().label())));
                true
            }
            _ => false,
        });
        refused.into_inner()
    }

    /// Memory that the namespace knows of is not there.
    #[cold]
    pub(crate) fn memory_removed(&self) -> Error {
        let (namespace, place) = (self.name.clone(), self.place.clone());
        ErrorKind::MemoryRemoved { namespace, name: None, place }.into()
    }

    #[cold]
    pub(crate) fn damaged(&self, what: &'static str) -> Error {
        ErrorKind::Damaged { namespace: self.name.clone(), what }.into()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Some(mut names) = self.names.take() {
            names.release(self);
        }
        if self.is_ours() {
            thread::depart(self);
            // SAFETY: dropped here only.
            unsafe { ManuallyDrop::drop(&mut self.tables) };
        }
    }
}
