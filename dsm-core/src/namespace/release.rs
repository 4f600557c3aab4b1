//! Letting go of segments: the last handle, callbacks, unmapping, destruction.
//!
//! The order is fixed: callbacks while everything is as it was; unmap; clear the process's bit
//! (and retire the slot, if that was the last); remove the object. The bit outlives the mapping,
//! so that nobody frees what is still mapped. The record's mutex is held from the unmapping to the
//! bit, so that another thread of the process that attaches meanwhile starts from nothing.
//!
//! # Held locks
//!
//! A guard can be forgotten, and a thread can end without its destructors: then the lock in the
//! segment stays held, and the record of it in the participant's slot says where: in which segment
//! *slot*. So a process whose threads have a record of a lock in a segment does not let go of it.
//! Its bit is what keeps the slot from a next tenant, in which the record would name something
//! else; and it is how whoever sweeps the process knows that the record still means this segment,
//! and clears the reader's mark. The mapping stays, as one that was pinned.

use core::ptr::NonNull;

use super::{Error, LocalSegment, Mapped, Namespace, acquire};
use crate::control::segment::SegmentSlot;
use crate::control::slots::{self, Retired};
use crate::control::{Control, ELECTOR, participant_state, process};
use crate::detach::DetachCallback;
use crate::handle::{LockAddress, SegmentHandle};
use crate::planted::{Bug, planted};
use crate::provider::{Mapping, RangeOwner};
use crate::reap;
use crate::sync::Ordering;

/// What becomes of the address range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaveBehind {
    Nothing,
    /// Private zeros for who comes late, kept in this name.
    Zeros(RangeOwner),
}

/// Goes on with the detaching that a callback's panic interrupted.
struct Rest<'n, 'a> {
    namespace: &'n Namespace<'a>,
    handle: SegmentHandle,
    leave: LeaveBehind,
}

impl Drop for Rest<'_, '_> {
    fn drop(&mut self) {
        self.namespace.let_go(self.handle, self.leave);
    }
}

impl Namespace<'_> {
    /// Lets go of one handle of this process.
    pub(crate) fn let_go(&self, handle: SegmentHandle, leave: LeaveBehind) {
        if !self.is_open() {
            return;
        }
        let local = &self.local.segments[handle.slot() as usize];
        loop {
            let mut mapped = acquire(&local.mapped, self.platform.env);
            if mapped.handle != handle.get() || mapped.handles == 0 {
                return;
            }
            if mapped.handles > 1 || mapped.pinned {
                mapped.handles -= 1;
                return;
            }
            if local.has_locks() && self.holds_in(handle) {
                drop(mapped);
                match self.sweep_threads(handle, local) {
                    Some(freed) => mapped = freed,
                    None => return,
                }
            }
            let Some(due) = mapped.pop() else {
                return self.unmap(handle, mapped, leave);
            };
            drop(mapped);
            let rest = Rest { namespace: self, handle, leave };
            due.run();
            core::mem::forget(rest);
        }
    }

    /// Whether a thread of this process holds a lock in the segment, as far as its record says.
    fn holds_in(&self, handle: SegmentHandle) -> bool {
        if planted(Bug::HeldSegmentLetGo) {
            return false;
        }
        let below = self.threads_below.load(Ordering::Relaxed) as usize;
        let threads = self.control.participants.iter().take(below).skip(ELECTOR as usize + 1);
        threads.filter(|slot| Control::process_of(slot) == self.process).any(|slot| {
            let (_, state) = process::unpack(slot.state.load(Ordering::Acquire));
            state != participant_state::FREE
                && slot.held().any(|(address, _)| address.slot() == handle.slot())
        })
    }

    /// Sweeps threads that have ended. Returns the record, which the caller has let go of, if no
    /// other has a lock in the segment; otherwise the mapping is kept instead of the last handle.
    #[cold]
    fn sweep_threads<'l>(
        &self,
        handle: SegmentHandle,
        local: &'l LocalSegment,
    ) -> Option<spin::MutexGuard<'l, Mapped>> {
        // What cannot be swept now stays held.
        let _ = reap::make_room(self);
        let mut mapped = acquire(&local.mapped, self.platform.env);
        if mapped.handle != handle.get() || mapped.handles == 0 {
            return None;
        }
        if mapped.handles == 1 && !self.holds_in(handle) {
            return Some(mapped);
        }
        mapped.handles -= 1;
        mapped.pinned |= mapped.handles == 0;
        None
    }

    /// The address of a lock at `offset` in a segment that this process has attached, for
    /// [`LockRef::new`](crate::lock::LockRef::new).
    #[must_use]
    pub fn lock_address(&self, handle: SegmentHandle, offset: u64) -> LockAddress {
        if let Some(local) = self.local.segments.get(handle.slot() as usize) {
            local.note_locks();
        }
        LockAddress::new(handle.slot(), offset)
    }

    /// Unmaps and lets go of the segment; the callbacks have run.
    fn unmap(
        &self,
        handle: SegmentHandle,
        mut record: spin::MutexGuard<'_, Mapped>,
        leave: LeaveBehind,
    ) {
        let Some(slot) = self.control.segment(handle.slot()) else { return };
        if !handle.is_main_region() {
            let Some(base) = NonNull::new(record.base) else { return };
            let mapping = Mapping { base, len: record.mapped_len, token: record.token };
            match leave {
                // SAFETY: this was the last handle, whose owner promised that nobody relies on the
                // contents.
                LeaveBehind::Zeros(owner) => unsafe {
                    self.platform().provider.blank(mapping, owner);
                },
                // SAFETY: this was the process's last handle to the mapping.
                LeaveBehind::Nothing => unsafe { self.platform().provider.detach(mapping) },
            }
        }
        *record = Mapped::NONE;
        let retired = self.with_control(|| {
            slot.set_attached(self.process.0, false);
            slots::retire_if_unused(&self.control, &slot)
        });
        drop(record);
        // Detaching never fails: what could not be removed now is retired, and the next reaper
        // tries again.
        let _ = self.destroy_after(&slot, retired.unwrap_or(None));
    }

    /// Removes the object of a slot that was retired just now, and of those that went with it.
    pub(crate) fn destroy_after(
        &self,
        slot: &SegmentSlot<'_>,
        retired: Option<Retired>,
    ) -> Result<(), Error> {
        match retired {
            Some(Retired { others: true }) => reap::destroy_retired(self),
            Some(Retired { others: false }) => reap::destroy_one(self, slot),
            None => Ok(()),
        }
    }

    /// Detaches everything the process has attached, whoever has handles.
    pub(super) fn detach_all(&self) {
        for record in self.local.segments {
            let handle = {
                let mut mapped = acquire(&record.mapped, self.platform.env);
                mapped.pinned = false;
                mapped.handles = 1;
                mapped.handle
            };
            if let Some(handle) = SegmentHandle::from_raw(handle) {
                self.let_go(handle, LeaveBehind::Nothing);
            }
            *acquire(&record.mapped, self.platform.env) = Mapped::NONE;
        }
    }

    /// Keeps a mapping of this process, or ends that.
    pub(crate) fn set_mapping_pinned(&self, handle: SegmentHandle, pinned: bool) -> bool {
        let Some(mut mapped) = self.record_of(handle) else { return false };
        mapped.pinned = pinned;
        if pinned || mapped.handles > 0 {
            return true;
        }
        mapped.handles = 1;
        drop(mapped);
        self.let_go(handle, LeaveBehind::Nothing);
        true
    }

    /// Ends [`Segment::pin_mapping`](crate::segment::Segment::pin_mapping): without a handle, the
    /// segment is detached now. Returns false if it is not mapped here.
    ///
    /// # Safety
    ///
    /// If no handle is left, nothing may use the mapping's memory any more.
    #[doc(alias = "dsm_unpin_mapping")]
    pub unsafe fn unpin_mapping(&self, handle: SegmentHandle) -> bool {
        self.set_mapping_pinned(handle, false)
    }

    /// This process's record of a segment it has mapped, locked.
    pub(crate) fn record_of(&self, handle: SegmentHandle) -> Option<spin::MutexGuard<'_, Mapped>> {
        if !self.is_open() {
            return None;
        }
        let mapped =
            acquire(&self.local.segments.get(handle.slot() as usize)?.mapped, self.platform.env);
        (mapped.handle == handle.get()).then_some(mapped)
    }

    /// Takes a callback back, wherever in the list it is.
    pub(crate) fn cancel(
        &self,
        handle: SegmentHandle,
        node: core::pin::Pin<&DetachCallback>,
    ) -> bool {
        self.record_of(handle).is_some_and(|mut mapped| mapped.cancel(node))
    }
}
