//! Kinds of locks: what a record says of the lock that it names, and who can clear a dead reader.
//!
//! A namespace may have locks of several kinds: ours, and an embedder's. Whoever holds one shared
//! and is killed leaves a mark in it, which is to be cleared before its participant slot has a
//! next tenant: that one would seem to hold the lock. Who sweeps the dead need not be a program
//! that uses such locks. Therefore:
//!
//! - a kind has an *identity* ([`RawLock::IDENTITY`]), and the record of a shared hold says which
//!   kind its lock is of. (A record of an exclusive hold needs none: the owner's word names its
//!   owner, and the next to want the lock finds out.)
//! - a process knows how to clear readers of our kinds, of those it was told of
//!   ([`ProcessLocal::know`](crate::namespace::ProcessLocal::know)), and of those it has used;
//! - of a kind that it does not know, it clears nothing, and frees nothing that depends on it: the
//!   dead one's slots and attachments stay until somebody sweeps who knows.
//!
//! # Modes of a record
//!
//! | mode | held | lock |
//! |---|---|---|
//! | 1 | shared | the reader-writer lock |
//! | 2 | alone | any |
//! | 3 | shared | the spin lock |
//! | 4, 5, 6 | shared | of the kind in `kinds[0]`, `[1]`, `[2]` of the participant's slot |
//!
//! So a record of one of our locks is a constant above its address.

use core::fmt;
use core::ptr::NonNull;

use super::rw::RwLock;
use super::spin::SPIN_LOCK;
use super::{HeldMode, RawLock};
use crate::env::Environment;
use crate::handle::LockAddress;
use crate::participant::MAX_KINDS;
use crate::sync::{AtomicU64, Ordering};

/// Modes, as they lie in a record.
pub(crate) const RW_SHARED: u64 = 1 << MODE_SHIFT;
pub(crate) const EXCLUSIVE: u64 = 2 << MODE_SHIFT;
pub(crate) const SPIN_SHARED: u64 = 3 << MODE_SHIFT;
const FOREIGN_SHARED: u64 = 4;
const MODE_SHIFT: u32 = 60;
/// The bits of a record that are the address.
pub(crate) const ADDRESS: u64 = (1 << MODE_SHIFT) - 1;

const _: () = assert!(FOREIGN_SHARED + MAX_KINDS as u64 <= 16);

/// The mode of a lock that is held shared and of the kind in `kinds[place]`.
#[inline]
pub(crate) const fn foreign_shared(place: usize) -> u64 {
    (FOREIGN_SHARED + place as u64) << MODE_SHIFT
}

/// A kind of lock, as those need it who sweep the dead: plain data, made by [`of`](Self::of).
#[derive(Clone, Copy, Debug)]
pub struct LockKind {
    identity: u64,
    size_for: fn(u32) -> usize,
    clear_reader: ClearReader,
}

/// [`RawLock::clear_reader`], of whatever lock.
type ClearReader = unsafe fn(NonNull<u8>, u32, u16, &dyn Environment);

impl LockKind {
    /// The kind of `L`.
    #[must_use]
    pub const fn of<L: RawLock>() -> Self {
        const { assert!(L::IDENTITY != 0, "zero is no kind of lock") };
        Self { identity: L::IDENTITY, size_for: L::size_for, clear_reader: clear::<L> }
    }

    /// [`RawLock::IDENTITY`].
    #[must_use]
    pub const fn identity(&self) -> u64 {
        self.identity
    }

    /// Bytes of such a lock.
    pub(crate) fn size_for(&self, max_participants: u32) -> usize {
        (self.size_for)(max_participants)
    }

    /// See [`RawLock::clear_reader`].
    ///
    /// # Safety
    ///
    /// As there.
    pub(crate) unsafe fn clear_reader(
        &self,
        at: NonNull<u8>,
        max_participants: u32,
        index: u16,
        env: &dyn Environment,
    ) {
        // SAFETY: the caller's promise.
        unsafe { (self.clear_reader)(at, max_participants, index, env) }
    }
}

/// # Safety
///
/// As for [`RawLock::clear_reader`].
unsafe fn clear<L: RawLock>(
    at: NonNull<u8>,
    max_participants: u32,
    index: u16,
    env: &dyn Environment,
) {
    // SAFETY: the caller's promise.
    unsafe { L::clear_reader(at.cast(), max_participants, index, env) }
}

/// An identity of a kind of lock, as errors show it: its text, if it has any, and the number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KindName(pub u64);

impl fmt::Display for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.to_le_bytes();
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        match core::str::from_utf8(text) {
            Ok(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) => {
                write!(f, "`{text}` ({:016x})", self.0)
            }
            _ => write!(f, "{:016x}", self.0),
        }
    }
}

/// The kinds that are not ours and that a process knows: few programs have one, hardly any several.
pub(crate) struct Kinds(spin::Mutex<[Option<LockKind>; Kinds::MOST]>);

impl Kinds {
    const MOST: usize = 8;

    pub(crate) const fn new() -> Self {
        Self(spin::Mutex::new([None; Self::MOST]))
    }

    /// Remembers a kind; false if there is no room for it.
    pub(crate) fn know(&self, kind: LockKind) -> bool {
        if Self::ours(kind.identity).is_some() {
            return true;
        }
        let mut kinds = self.0.lock();
        let known = |place: &&mut Option<LockKind>| {
            place.as_ref().is_none_or(|known| known.identity == kind.identity)
        };
        kinds.iter_mut().find(known).map(|place| *place = Some(kind)).is_some()
    }

    /// The kind of that identity, if it is known.
    pub(crate) fn find(&self, identity: u64) -> Option<LockKind> {
        let ours = Self::ours(identity);
        ours.or_else(|| self.0.lock().iter().flatten().find(|k| k.identity == identity).copied())
    }

    /// Whether no thread is in here: in a fork child, none ever that it does not have.
    pub(crate) fn is_unlocked(&self) -> bool {
        self.0.try_lock().is_some()
    }

    fn ours(identity: u64) -> Option<LockKind> {
        match identity {
            RwLock::IDENTITY => Some(LockKind::of::<RwLock>()),
            SPIN_LOCK => Some(LockKind::of::<super::spin::SpinLock>()),
            _ => None,
        }
    }
}

/// What a record says of how its lock is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hold {
    Exclusive,
    /// By the identity of its kind.
    Shared(u64),
}

impl Hold {
    /// Reads a record; `None` if it is empty (or nonsense). `kinds` are those of the same slot.
    pub(crate) fn parse(
        record: u64,
        kinds: &[AtomicU64; MAX_KINDS],
    ) -> Option<(LockAddress, Self)> {
        let hold = match (HeldMode::parse(record)?.1, record & !ADDRESS) {
            (HeldMode::Exclusive, _) => Self::Exclusive,
            (HeldMode::Shared, RW_SHARED) => Self::Shared(RwLock::IDENTITY),
            (HeldMode::Shared, SPIN_SHARED) => Self::Shared(SPIN_LOCK),
            (HeldMode::Shared, foreign) => {
                let place = (foreign >> MODE_SHIFT) - FOREIGN_SHARED;
                match kinds.get(place as usize)?.load(Ordering::Acquire) {
                    0 => return None,
                    identity => Self::Shared(identity),
                }
            }
        };
        Some((LockAddress::from_raw(record & ADDRESS), hold))
    }
}

impl HeldMode {
    /// Reads a record; `None` if it is empty (or nonsense).
    #[must_use]
    pub const fn parse(record: u64) -> Option<(LockAddress, Self)> {
        const LAST: u64 = FOREIGN_SHARED + MAX_KINDS as u64 - 1;
        let mode = match record >> MODE_SHIFT {
            1 | 3 | FOREIGN_SHARED..=LAST => Self::Shared,
            2 => Self::Exclusive,
            _ => return None,
        };
        Some((LockAddress::from_raw(record & ADDRESS), mode))
    }
}
