//! What a heap remembers privately: where free objects are likely to be.
//!
//! [`HeapLocal`] is memory of one thread, supplied by the caller, for one area. Nothing in it is
//! needed by anybody else: it dies with its process without harm. All zero bytes mean "nothing
//! known", so that the platform can put it into pages that are wiped on fork: the child then finds
//! itself without hints and without an identity.
//!
//! Per size class:
//!
//! * the **magazine**: the last objects freed, newest first, each with the address of its truth
//!   byte;
//! * the **mask**: free objects of one window of 64 in the current slab;
//! * the **current** slab, and a list of the others, which have room. The links are in the slabs'
//!   headers.
//!
//! A hint is only a hint: an object is taken if its truth byte is 0 when it is taken. Hints that
//! point into a slab are purged before the slab is given up, and all of them when the participant
//! or the mapping is another one than they were made for.

use core::cell::Cell;

use dsm_core::sync::{AtomicU8, Ordering};

use crate::class::CLASSES;
use crate::pointer::DsaPointer;
use crate::racy_scan;
use crate::slab::FREE;

/// Objects a magazine holds: enough for bursts, few enough to stay in the cache.
pub(crate) const MAGAZINE: usize = 32;

struct Hint {
    pointer: Cell<u64>,
    truth: Cell<*const AtomicU8>,
}

/// The hints of one class; see the module's essay.
#[repr(C, align(64))]
pub(crate) struct ClassHints {
    count: Cell<u32>,
    /// Bytes of an object, set with the mask.
    size: Cell<u32>,
    mask: Cell<u64>,
    /// The object of bit 0, and its truth byte.
    base: Cell<u64>,
    truth: Cell<*const AtomicU8>,
    /// Raw pointers to slabs' first bytes; 0 for none.
    pub(crate) current: Cell<u64>,
    pub(crate) partial: Cell<u64>,
    /// Slabs that are `current`, or in the list.
    pub(crate) slabs: Cell<u32>,
    /// Slabs that this heap had made, without those that it found empty since.
    pub(crate) made: Cell<u32>,
    /// Objects above a page that were served as runs because no slab existed yet.
    pub(crate) cold: Cell<u16>,
    magazine: [Hint; MAGAZINE],
}

impl ClassHints {
    const fn new() -> Self {
        Self {
            count: Cell::new(0),
            size: Cell::new(0),
            mask: Cell::new(0),
            base: Cell::new(0),
            truth: Cell::new(core::ptr::null()),
            current: Cell::new(0),
            partial: Cell::new(0),
            slabs: Cell::new(0),
            made: Cell::new(0),
            cold: Cell::new(0),
            magazine: [const { Hint { pointer: Cell::new(0), truth: Cell::new(core::ptr::null()) } };
                MAGAZINE],
        }
    }

    /// Takes a free object by storing `value` into its truth byte; `None` if no hint is left.
    #[inline(always)]
    pub(crate) fn take(&self, value: u8) -> Option<DsaPointer> {
        let count = self.count.get();
        if count != 0 {
            let hint = &self.magazine[(count as usize - 1) % MAGAZINE];
            let (pointer, truth) = (hint.pointer.get(), hint.truth.get());
            self.count.set(count - 1);
            // SAFETY: the magazine holds truth bytes of slabs that this heap owns, in segments
            // that stay mapped while it owns one there; it is purged before a slab is given up.
            let truth = unsafe { &*truth };
            // Acquire: whoever freed it from another process is done with it.
            if truth.load(Ordering::Acquire) == FREE {
                truth.store(value, Ordering::Release);
                return Some(DsaPointer::from_raw(pointer));
            }
            return self.take_after_stale(value);
        }
        self.take_masked(value)
    }

    #[inline(always)]
    fn take_masked(&self, value: u8) -> Option<DsaPointer> {
        let mask = self.mask.get();
        if mask == 0 {
            return None;
        }
        let bit = mask.trailing_zeros();
        self.mask.set(mask & (mask - 1));
        // SAFETY: a mask is set with the truth bytes of its window, of a slab that this heap
        // owns; its bits are below the window's length.
        let truth = unsafe { self.truth.get().add(bit as usize) };
        // SAFETY: as above.
        let truth = unsafe { &*truth };
        if truth.load(Ordering::Acquire) == FREE {
            truth.store(value, Ordering::Release);
            let distance = u64::from(bit) * u64::from(self.size.get());
            return Some(DsaPointer::from_raw(self.base.get() + distance));
        }
        self.take_after_stale(value)
    }

    /// The hint was stale: the object was in the magazine and in the mask, and taken by way of
    /// the other.
    #[cold]
    #[inline(never)]
    fn take_after_stale(&self, value: u8) -> Option<DsaPointer> {
        while self.count.get() != 0 || self.mask.get() != 0 {
            let before = (self.count.get(), self.mask.get());
            let pointer = if before.0 != 0 {
                let hint = &self.magazine[(before.0 as usize - 1) % MAGAZINE];
                self.count.set(before.0 - 1);
                (hint.pointer.get(), hint.truth.get())
            } else {
                let bit = before.1.trailing_zeros();
                self.mask.set(before.1 & (before.1 - 1));
                let distance = u64::from(bit) * u64::from(self.size.get());
                // SAFETY: as in `take_masked`.
                let truth = unsafe { self.truth.get().add(bit as usize) };
                (self.base.get() + distance, truth)
            };
            // SAFETY: as in `take` and `take_masked`.
            let truth = unsafe { &*pointer.1 };
            if truth.load(Ordering::Acquire) == FREE {
                truth.store(value, Ordering::Release);
                return Some(DsaPointer::from_raw(pointer.0));
            }
        }
        None
    }

    /// Remembers an object just freed. True if there is no room for it and its slab may be empty.
    #[inline(always)]
    pub(crate) fn push(&self, pointer: DsaPointer, truth: &AtomicU8) -> bool {
        let count = self.count.get() as usize;
        if count < MAGAZINE {
            let hint = &self.magazine[count];
            hint.pointer.set(pointer.raw());
            hint.truth.set(truth);
            self.count.set(count as u32 + 1);
            return false;
        }
        // SAFETY: truth bytes lie together, padded to sixteen; of slabs of one page with few
        // objects those of their whole unit do.
        unsafe { racy_scan::neighbours_are_free(truth) }
    }

    /// Sets the mask to a window whose first object is `base` and first truth byte `truth`.
    pub(crate) fn set_window(
        &self,
        mask: u64,
        base: DsaPointer,
        size: u32,
        truth: *const AtomicU8,
    ) {
        self.base.set(base.raw());
        self.size.set(size);
        self.truth.set(truth);
        self.mask.set(mask);
    }

    /// Forgets all objects of the slab of `bytes` bytes at `slab`.
    pub(crate) fn purge(&self, slab: DsaPointer, bytes: u64) {
        let inside = |raw: u64| raw & !(bytes - 1) == slab.raw();
        if inside(self.base.get()) {
            self.mask.set(0);
        }
        let mut kept = 0;
        for index in 0..self.count.get() as usize {
            let (pointer, truth) =
                (self.magazine[index].pointer.get(), self.magazine[index].truth.get());
            if !inside(pointer) {
                self.magazine[kept].pointer.set(pointer);
                self.magazine[kept].truth.set(truth);
                kept += 1;
            }
        }
        self.count.set(kept as u32);
    }

    /// Forgets everything.
    fn wipe(&self) {
        self.count.set(0);
        self.mask.set(0);
        self.base.set(0);
        for field in [&self.current, &self.partial] {
            field.set(0);
        }
        self.slabs.set(0);
        self.made.set(0);
        self.cold.set(0);
    }
}

/// A thread's hints for one area; see the module's essay. About 23 KiB; all zero bytes are a
/// valid, empty value.
///
/// One for each thread and area: a heap that finds it in use for another area, mapping or
/// participant starts from nothing, and what it owned stays unused until the participant ends.
pub struct HeapLocal {
    /// The heap's number, which is the owner word of its slabs; 0 if it has none (yet, or after a
    /// fork).
    pub(crate) me: Cell<u64>,
    /// Whose heap it is: the participant's packed id.
    pub(crate) participant: Cell<u64>,
    /// Which attachment of which area the hints are for.
    pub(crate) instance: Cell<u64>,
    pub(crate) classes: [ClassHints; CLASSES],
}

impl HeapLocal {
    /// Without any hint.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            me: Cell::new(0),
            participant: Cell::new(0),
            instance: Cell::new(0),
            classes: [const { ClassHints::new() }; CLASSES],
        }
    }

    /// Forgets everything, without touching shared memory.
    pub fn wipe(&self) {
        self.me.set(0);
        self.participant.set(0);
        self.instance.set(0);
        for class in &self.classes {
            class.wipe();
        }
    }
}

impl Default for HeapLocal {
    fn default() -> Self {
        Self::new()
    }
}
