//! Callbacks that run before a process unmaps a segment.
//!
//! A callback is a node that its owner pins somewhere, linked into the process's record of the
//! mapping: the latest first, since the core has no `alloc`. The list is process-local, so that a
//! killed process's callbacks simply do not run (their work must not be needed for recovery) and
//! a fork child's neither.
//!
//! They run when the last handle of the process goes, before anything is unmapped, the latest
//! first, each unlinked before it runs: one that panics is not run again, and those before it run
//! while the panic unwinds. (A second panic then aborts, as everywhere in Rust.) The handle that
//! goes keeps its count until the list is empty: a callback may find the mapping by handle and
//! even take a handle of its own, in which case the rest of the list waits for that one to go.

use core::cell::Cell;
use core::marker::PhantomPinned;
use core::pin::Pin;
use core::ptr::{self, NonNull};

use crate::handle::SegmentHandle;
use crate::namespace::Mapped;
use crate::sync::{AtomicBool, Ordering};

/// The mapping that a callback is about.
#[derive(Clone, Copy, Debug)]
pub struct Detaching {
    /// Which segment.
    pub handle: SegmentHandle,
    /// First byte; still mapped.
    pub base: NonNull<u8>,
    /// Length in bytes.
    pub len: usize,
}

/// What a callback looks like: the mapping, and the callback's argument.
pub type DetachFunction = fn(Detaching, u64);

/// A callback for [`Segment::on_detach`](crate::segment::Segment::on_detach).
pub struct DetachCallback {
    function: DetachFunction,
    argument: u64,
    /// Whether it is in a list; who sets it owns `next` until it is in none again.
    linked: AtomicBool,
    next: Cell<*const DetachCallback>,
    _pinned: PhantomPinned,
}

// SAFETY: `next` is touched only by the list that `linked` says it is in, under the mutex of the
// record the list hangs off.
unsafe impl Sync for DetachCallback {}
// SAFETY: the pointer in `next` is the list's; a node that can be moved is in no list.
unsafe impl Send for DetachCallback {}

impl DetachCallback {
    /// A callback, not registered anywhere.
    #[must_use]
    pub fn new(function: DetachFunction, argument: u64) -> Self {
        Self {
            function,
            argument,
            linked: AtomicBool::new(false),
            next: Cell::new(ptr::null()),
            _pinned: PhantomPinned,
        }
    }

    /// Whether it is registered, and has not begun to run.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.linked.load(Ordering::Acquire)
    }
}

/// A callback taken out of its list, about to run.
pub(crate) struct Due {
    function: DetachFunction,
    argument: u64,
    mapping: Detaching,
}

impl Due {
    pub(crate) fn run(self) {
        (self.function)(self.mapping, self.argument);
    }
}

impl Mapped {
    /// Links a callback in front; false if it is in a list already.
    pub(crate) fn push(&mut self, node: Pin<&DetachCallback>) -> bool {
        if node.linked.swap(true, Ordering::AcqRel) {
            return false;
        }
        node.next.set(self.callbacks);
        self.callbacks = ptr::from_ref(node.get_ref());
        true
    }

    /// Unlinks the latest callback.
    pub(crate) fn pop(&mut self) -> Option<Due> {
        let handle = SegmentHandle::from_raw(self.handle)?;
        let base = NonNull::new(self.base)?;
        // SAFETY: `on_detach` made its caller promise that a linked node stays where it is.
        let node = unsafe { self.callbacks.as_ref() }?;
        self.callbacks = node.next.get();
        let due = Due {
            function: node.function,
            argument: node.argument,
            mapping: Detaching { handle, base, len: self.len },
        };
        // The last access: the owner may take the node away from here on.
        node.linked.store(false, Ordering::Release);
        Some(due)
    }

    /// Unlinks one callback; false if it is not in this list.
    pub(crate) fn cancel(&mut self, node: Pin<&DetachCallback>) -> bool {
        let node = node.get_ref();
        let mut before: Option<&DetachCallback> = None;
        let mut at = self.callbacks;
        // SAFETY: as in `pop`, for every node of the list.
        while let Some(current) = unsafe { at.as_ref() } {
            if ptr::eq(current, node) {
                match before {
                    Some(before) => before.next.set(node.next.get()),
                    None => self.callbacks = node.next.get(),
                }
                node.linked.store(false, Ordering::Release);
                return true;
            }
            before = Some(current);
            at = current.next.get();
        }
        false
    }
}
