//! What the registry keeps in shared memory: its header, and an entry for each name.
//!
//! ```text
//! control segment          registry's area
//!  root[0] area handle --> header { wake word, change count, names table }
//!  root[1] header                     |
//!  root[2] who builds it              `--> dshash: name (64 bytes) -> Entry
//! ```
//!
//! **Ground truth.** `Entry::state` says what a name is: one word, changed by one store, under the
//! exclusive lock of the name's partition. Everything else in an entry is written before the
//! state that makes it mean something, and never after. A process that dies with the lock held
//! therefore leaves an entry that its state describes fully, and the poison that the table puts
//! on it can be cleared by whoever meets it first.
//!
//! | state | who may change it | what a dead owner leaves |
//! |---|---|---|
//! | (no entry) | anyone, to INITIALISING | nothing |
//! | INITIALISING(id) | that participant; anyone once it is dead | at most one object, pinned or not, that `handle` names |
//! | READY | anyone, to REMOVING | |
//! | REMOVING(id) | that participant; anyone once it is dead | the object, perhaps unpinned already |
//!
//! **What each crash point leaves.** A segment or area is created unpinned: when its creator dies
//! it goes with the reaping of the dead process. Then its handle is stored in the entry, then it
//! is pinned, then READY is stored. Killed before the handle: nothing stays. Killed after it: the
//! next one to ask for the name finds INITIALISING(dead) with a handle, and unpins what that names
//! before it starts over. Removal goes the other way: REMOVING(id), unpin, delete the entry.
//!
//! **Header.** `wake` is bumped, and its waiters woken, after each change of any state; a lost
//! wake costs its waiter the rest of a bounded wait. `changes` is bumped when a name has stopped
//! meaning what it did (a removal), before it can mean anything else: whoever cached a lookup
//! compares it.

use dsm_core::handle::ParticipantId;
use dsm_core::sync::{AtomicU32, AtomicU64, Ordering};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::error::{Description, Kind};
use crate::tag::TypeTag;

/// Marks the header; changes with its layout and that of [`Entry`].
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"dsmreg01");

/// Root word: handle of the registry's own area, once it can be used.
pub(crate) const ROOT_AREA: usize = 0;
/// Root word: where in the area the header lies; stored before `ROOT_AREA`.
pub(crate) const ROOT_HEADER: usize = 1;
/// Root word: packed id of the participant that builds the area; 0 for none.
pub(crate) const ROOT_BUILDER: usize = 2;

/// The registry's header; see the module's essay.
#[derive(FromBytes, KnownLayout)]
#[repr(C, align(64))]
pub(crate) struct Header {
    /// [`MAGIC`].
    magic: u64,
    /// Handle of the table of names.
    names: u64,
    /// Bumped when a name has stopped meaning what it did.
    pub(crate) changes: AtomicU64,
    /// Waited on by those who wait for a name.
    pub(crate) wake: AtomicU32,
    _reserved: [u32; 9],
}

const _: () = assert!(size_of::<Header>() == 64);

impl Header {
    pub(crate) const fn new(names: u64) -> Self {
        Self {
            magic: MAGIC,
            names,
            changes: AtomicU64::new(0),
            wake: AtomicU32::new(0),
            _reserved: [0; 9],
        }
    }

    /// Magic, and handle of the table of names.
    pub(crate) fn parts(&self) -> (u64, u64) {
        (self.magic, self.names)
    }
}

/// Longest type name that an entry keeps, in bytes.
const TYPE_NAME: usize = 96;

/// What is kept of a type.
#[derive(FromBytes, IntoBytes, KnownLayout, Clone, Copy)]
#[repr(C)]
pub(crate) struct TypeInfo {
    pub(crate) tag: u64,
    pub(crate) size: u64,
    pub(crate) align: u64,
    /// The end of the type's name, padded with zeros: what tells it from others stands there.
    name: [u8; TYPE_NAME],
}

impl TypeInfo {
    pub(crate) const NONE: Self = Self { tag: 0, size: 0, align: 0, name: [0; TYPE_NAME] };

    /// Of a type, with the tag that the caller gave, if any.
    pub(crate) fn of<T: 'static>(tag: Option<TypeTag>) -> Self {
        let mut info = Self {
            tag: tag.unwrap_or_else(TypeTag::of::<T>).get(),
            size: size_of::<T>() as u64,
            align: align_of::<T>() as u64,
            name: [0; TYPE_NAME],
        };
        let full = core::any::type_name::<T>();
        let mut from = full.len().saturating_sub(TYPE_NAME);
        while !full.is_char_boundary(from) {
            from += 1;
        }
        let tail = &full.as_bytes()[from..];
        info.name[..tail.len()].copy_from_slice(tail);
        info
    }

    /// Of raw bytes.
    pub(crate) fn bytes(len: u64) -> Self {
        Self { size: len, align: 1, ..Self::NONE }
    }

    fn name(&self) -> String {
        let len = self.name.iter().position(|b| *b == 0).unwrap_or(TYPE_NAME);
        String::from_utf8_lossy(&self.name[..len]).into_owned()
    }
}

/// What a name stands for, or is asked for as.
#[derive(FromBytes, IntoBytes, KnownLayout, Clone, Copy)]
#[repr(C)]
pub(crate) struct Shape {
    kind: u64,
    pub(crate) value: TypeInfo,
    pub(crate) key: TypeInfo,
}

impl Shape {
    pub(crate) fn new(kind: Kind, value: TypeInfo, key: TypeInfo) -> Self {
        let kind = match kind {
            Kind::Segment => 1,
            Kind::Bytes => 2,
            Kind::Area => 3,
            Kind::Hash => 4,
        };
        Self { kind, value, key }
    }

    /// The kind; `None` for bytes that no version of ours wrote.
    pub(crate) fn kind(&self) -> Option<Kind> {
        match self.kind {
            1 => Some(Kind::Segment),
            2 => Some(Kind::Bytes),
            3 => Some(Kind::Area),
            4 => Some(Kind::Hash),
            _ => None,
        }
    }

    /// Whether one can be used as the other. Names of types are for people only.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        let same =
            |a: &TypeInfo, b: &TypeInfo| (a.tag, a.size, a.align) == (b.tag, b.size, b.align);
        self.kind == other.kind && same(&self.value, &other.value) && same(&self.key, &other.key)
    }

    /// For error messages; `None` as for [`kind`](Self::kind).
    pub(crate) fn describe(&self) -> Option<Description> {
        Some(Description {
            kind: self.kind()?,
            value: self.value.name(),
            value_size: self.value.size,
            value_tag: self.value.tag,
            key: self.key.name(),
            key_size: self.key.size,
            key_tag: self.key.tag,
        })
    }
}

/// A name's value in the table of names; see the module's essay.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct Entry {
    /// The truth: a [`State`], packed.
    state: AtomicU64,
    /// Handle of the segment, or of the area; 0 while there is none.
    handle: AtomicU64,
    /// Handle of the table in that area; 0 for none.
    table: AtomicU64,
    pub(crate) shape: Shape,
}

const _: () = assert!(size_of::<Entry>() == 272);

/// What a name's state word says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// The participant runs the initialiser.
    Initialising(ParticipantId),
    /// Can be used.
    Ready,
    /// The participant removes it.
    Removing(ParticipantId),
}

const STATE_SHIFT: u32 = 60;

impl State {
    fn pack(self) -> u64 {
        match self {
            Self::Initialising(id) => 1 << STATE_SHIFT | id.pack(),
            Self::Ready => 2 << STATE_SHIFT,
            Self::Removing(id) => 3 << STATE_SHIFT | id.pack(),
        }
    }

    fn unpack(word: u64) -> Option<Self> {
        let id = ParticipantId::unpack(word & ((1 << STATE_SHIFT) - 1));
        match (word >> STATE_SHIFT, id) {
            (1, Some(id)) => Some(Self::Initialising(id)),
            (2, _) => Some(Self::Ready),
            (3, Some(id)) => Some(Self::Removing(id)),
            _ => None,
        }
    }
}

impl Entry {
    /// A name that `me` is about to initialise.
    pub(crate) fn claimed(shape: Shape, me: ParticipantId) -> Self {
        Self {
            state: AtomicU64::new(State::Initialising(me).pack()),
            handle: AtomicU64::new(0),
            table: AtomicU64::new(0),
            shape,
        }
    }

    /// The state; `None` for bytes that no version of ours wrote.
    pub(crate) fn state(&self) -> Option<State> {
        State::unpack(self.state.load(Ordering::Acquire))
    }

    /// Changes the state, after everything stored before.
    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state.pack(), Ordering::Release);
    }

    pub(crate) fn handle(&self) -> u64 {
        self.handle.load(Ordering::Relaxed)
    }

    pub(crate) fn table(&self) -> u64 {
        self.table.load(Ordering::Relaxed)
    }

    /// Records the object, before it is pinned.
    pub(crate) fn set_object(&self, handle: u64, table: u64) {
        self.table.store(table, Ordering::Relaxed);
        self.handle.store(handle, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_packing() {
        let id = ParticipantId { index: 383, generation: u32::MAX };
        for state in [State::Initialising(id), State::Ready, State::Removing(id)] {
            assert_eq!(State::unpack(state.pack()), Some(state));
        }
        for junk in [0, 1 << STATE_SHIFT, 3 << STATE_SHIFT, 4 << STATE_SHIFT, u64::MAX] {
            assert_eq!(State::unpack(junk), None, "{junk:x}");
        }
    }

    #[test]
    fn long_type_names_keep_their_end() {
        type Deep = Option<Option<Option<Option<Option<[core::num::NonZeroU128; 17]>>>>>;
        let info = TypeInfo::of::<Deep>(None);
        assert!(core::any::type_name::<Deep>().ends_with(&info.name()));
        assert_eq!(info.name().len(), TYPE_NAME);
    }

    #[test]
    fn shapes_compare_by_tag_size_and_kind() {
        let a = |tag| Shape::new(Kind::Segment, TypeInfo::of::<u64>(tag), TypeInfo::NONE);
        assert!(a(None).fits(&a(None)));
        assert!(!a(None).fits(&a(Some(TypeTag::named("x", 1)))));
        let b = Shape::new(Kind::Bytes, TypeInfo::of::<u64>(None), TypeInfo::NONE);
        assert!(!a(None).fits(&b));
    }
}
