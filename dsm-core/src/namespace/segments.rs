//! Creating, attaching and pinning segments.
//!
//! Creating an object of the operating system is three steps: the slot says CREATING and names
//! the object, the object is made, the slot says LIVE. A kill between any two leaves a record by
//! which the object is found and removed. Making it takes hundreds of microseconds, so neither
//! the control lock nor a mutex of the process is held meanwhile.
//!
//! Attaching sets the process's bit under the control lock, where the slot is seen to be LIVE:
//! from then on the segment can't go. Then it is mapped. Only if that fails is the bit taken back
//! (and the segment retired, if it was the last).

use core::ptr::NonNull;

use super::error::MOST_BYTES;
use super::{Error, Mapped, Namespace, acquire};
use crate::control::segment::{State, Word};
use crate::control::{process, slots};
use crate::error::ErrorKind;
use crate::handle::{ObjectId, SegmentHandle};
use crate::main_region;
use crate::planted::{Bug, planted};
use crate::provider::{Mapping, RangeOwner};
use crate::reap;
use crate::segment::Segment;
use crate::sync::Ordering;

/// Handles drawn before the source of randomness, or of names, is declared broken.
const ATTEMPTS: u32 = 16;

impl Namespace<'_> {
    /// Creates a segment, the first `reserved` of its `size` bytes backed by memory now, in the
    /// main region if that has room (where all of it is backed). Its bytes are zero, except in
    /// the main region.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSize`]; [`Error::TooManySegments`], also after reaping the dead;
    /// [`Error::Provider`], as when memory is short, also after that; [`Error::Entropy`];
    /// [`Error::Forked`]. No object is left behind.
    #[doc(alias = "dsm_create")]
    pub fn create_segment(&self, size: usize, reserved: usize) -> Result<Segment<'_>, Error> {
        if size == 0 || size > MOST_BYTES {
            return Err(Error::InvalidSize(size as u64));
        }
        if let Some(segment) = main_region::create(self, size)? {
            return Ok(segment);
        }
        self.create_object(size, reserved)
    }

    /// As [`create_segment`](Self::create_segment), but always an object of its own, whose memory
    /// returns to the system when it goes.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn create_object(&self, size: usize, reserved: usize) -> Result<Segment<'_>, Error> {
        if size == 0 || size > MOST_BYTES {
            return Err(Error::InvalidSize(size as u64));
        }
        let (mut handle, generation) = match self.claim_slot(size)? {
            Some(claimed) => claimed,
            None => {
                reap::make_room(self)?;
                let most = self.control.layout.max_segments;
                self.claim_slot(size)?.ok_or(Error::TooManySegments(most))?
            }
        };
        let mut attempts = 1;
        let made = loop {
            let create = || self.platform.provider.create(handle, size, reserved.min(size));
            match self.taking_memory(create) {
                Err(failure) if failure.kind == ErrorKind::AlreadyExists && attempts < ATTEMPTS => {
                    attempts += 1;
                    match self.draw(handle.slot()).and_then(|other| self.rename(handle, other)) {
                        Ok(other) => handle = other,
                        Err(error) => break Err(error),
                    }
                }
                made => break made.map_err(Error::Provider),
            }
        };
        let slot = self.control.segment(handle.slot()).ok_or(Error::NoSuchSegment(handle))?;
        let (mapping, id) = match made {
            Ok(made) => made,
            Err(error) => {
                // Nothing of that name is ours: the slot is free without a look at the system.
                self.with_control(|| slots::free_slot(&self.control, &slot))?;
                return Err(error);
            }
        };
        slot.record.reserved.store(reserved.min(size) as u64, Ordering::Relaxed);
        // Locked before anybody can attach: a thread of this process that learned of the handle by
        // a look at the control segment must find this mapping, not make a second one.
        let mut record =
            acquire(&self.local.segments[handle.slot() as usize].mapped, self.platform.env);
        let live = self.with_control(|| {
            slot.set_id(id);
            slot.set_attached(self.process.0, true);
            if planted(Bug::CreatingUnrecorded) {
                slots::publish(&self.control, &slot, Word::new(State::Creating, generation));
            }
            slot.set(Word::new(State::Live, generation));
        });
        if let Err(error) = live {
            // Without the lock nobody may be told; the record says CREATING, and whoever reaps
            // this process removes the object. The mapping is ours alone.
            // SAFETY: mapped above, handed out to nobody.
            unsafe { self.platform.provider.detach(mapping) };
            return Err(error);
        }
        Ok(self.enter(&mut record, handle, &mapping, size))
    }

    /// Records that an object is about to be created; `None` if all slots are taken.
    fn claim_slot(&self, size: usize) -> Result<Option<(SegmentHandle, u32)>, Error> {
        // The slot is known under the lock only, the random bits are fetched without it.
        let random = self.draw(0)?.get();
        self.with_control(|| {
            let (slot, generation) = slots::take_slot(&self.control)?;
            let handle = SegmentHandle::compose(random, slot.index, false)?;
            let creator = process::pack(self.process.1, self.process.0);
            slot.set_handle(handle);
            slot.record.size.store(size as u64, Ordering::Relaxed);
            slot.record.reserved.store(0, Ordering::Relaxed);
            slot.set_id(ObjectId::default());
            slot.record.creator.store(creator, Ordering::Relaxed);
            if !planted(Bug::CreatingUnrecorded) {
                slots::publish(&self.control, &slot, Word::new(State::Creating, generation));
            }
            Some((handle, generation))
        })
    }

    /// A fresh random handle for a slot.
    fn draw(&self, slot: u32) -> Result<SegmentHandle, Error> {
        (0..ATTEMPTS)
            .find_map(|_| SegmentHandle::compose(self.platform.env.next_u64(), slot, false))
            .ok_or(Error::Entropy)
    }

    /// Gives a CREATING record another name, before anything of that name is made.
    fn rename(&self, handle: SegmentHandle, other: SegmentHandle) -> Result<SegmentHandle, Error> {
        let slot = self.control.segment(handle.slot()).ok_or(Error::NoSuchSegment(handle))?;
        self.with_control(|| slot.set_handle(other))?;
        Ok(other)
    }

    /// Enters a mapping into the process's table.
    fn enter(
        &self,
        record: &mut Mapped,
        handle: SegmentHandle,
        mapping: &Mapping,
        size: usize,
    ) -> Segment<'_> {
        self.local.note_use(handle.slot());
        *record = Mapped {
            handle: handle.get(),
            base: mapping.base.as_ptr(),
            len: size,
            mapped_len: mapping.len,
            token: mapping.token,
            handles: 1,
            ..Mapped::NONE
        };
        Segment::new(self, handle, mapping.base, size)
    }

    /// Attaches; `None` if there is no such segment (any more). If this process has it mapped
    /// already, the result is another handle to the same mapping.
    ///
    /// # Errors
    ///
    /// [`Error::Provider`] if it cannot be mapped; [`Error::Truncated`] if the object is shorter
    /// than the segment; [`Error::Forked`].
    #[doc(alias = "dsm_attach")]
    pub fn attach_segment(&self, handle: SegmentHandle) -> Result<Option<Segment<'_>>, Error> {
        if !self.is_open() {
            return Err(Error::Forked);
        }
        if handle.slot() >= self.control.layout.max_segments {
            return Ok(None);
        }
        let mut record =
            acquire(&self.local.segments[handle.slot() as usize].mapped, self.platform.env);
        if let Some(segment) = self.another(handle, &mut record) {
            return Ok(Some(segment));
        }
        // The slot's last tenant is still mapped here (pinned or in use): the slot is not free,
        // so that no other segment has it.
        if record.handle != 0 {
            return Ok(None);
        }
        let look = || slots::find(&self.control, handle);
        let seen = if planted(Bug::AttachUnchecked) { look() } else { None };
        let attached = self.with_control(|| {
            let slot = seen.or_else(look)?;
            slot.set_attached(self.process.0, true);
            Some((slot, slot.size(), slot.id()))
        })?;
        let Some((slot, size, id)) = attached else { return Ok(None) };
        let mapped = if handle.is_main_region() {
            main_region::locate(&self.control, &slot, size)
        } else {
            self.platform.provider.attach(handle, id).map_err(Error::Provider)
        };
        let mapped = mapped.and_then(|mapping| {
            if handle.is_main_region() || mapping.len >= size {
                return Ok(mapping);
            }
            // SAFETY: mapped just now, handed out to nobody.
            unsafe { self.platform.provider.detach(mapping) };
            Err(Error::Truncated(mapping.len as u64, size as u64))
        });
        match mapped {
            Ok(mapping) => Ok(Some(self.enter(&mut record, handle, &mapping, size))),
            Err(error) => {
                let retired = self.with_control(|| {
                    slot.set_attached(self.process.0, false);
                    slots::retire_if_unused(&self.control, &slot)
                })?;
                drop(record);
                if retired.is_some() {
                    // What remains is left to the next reaper; the first error says more.
                    let _ = self.destroy_after(&slot, retired);
                }
                Err(error)
            }
        }
    }

    /// A second handle to a mapping of this process; `None` if it is not mapped here.
    #[doc(alias = "dsm_find_mapping")]
    pub fn find_mapping(&self, handle: SegmentHandle) -> Option<Segment<'_>> {
        if !self.is_open() {
            return None;
        }
        let mut record =
            acquire(&self.local.segments.get(handle.slot() as usize)?.mapped, self.platform.env);
        self.another(handle, &mut record)
    }

    fn another(&self, handle: SegmentHandle, record: &mut Mapped) -> Option<Segment<'_>> {
        if record.handle != handle.get() {
            return None;
        }
        let base = NonNull::new(record.base)?;
        record.handles = record.handles.checked_add(1)?;
        Some(Segment::new(self, handle, base, record.len))
    }

    /// Keeps the segment after its last detach.
    ///
    /// # Errors
    ///
    /// [`Error::Pinned`] if it is pinned already, [`Error::NoSuchSegment`], [`Error::Forked`].
    #[doc(alias = "dsm_pin_segment")]
    pub fn pin_segment(&self, handle: SegmentHandle) -> Result<(), Error> {
        self.with_control(|| {
            let slot = slots::find(&self.control, handle).ok_or(Error::NoSuchSegment(handle))?;
            let word = slot.word();
            if word.pinned {
                return Err(Error::Pinned(true));
            }
            slot.record.parent.store(0, Ordering::Relaxed);
            slot.set(Word { pinned: true, ..word });
            Ok(())
        })?
    }

    /// Pins the segment for as long as the segment `parent` exists: it survives its own last
    /// detach, and goes together with `parent`, however that one ends (last detach, unpin,
    /// reaping of the dead). `unpin_segment` ends it sooner. The segments that an area grows by
    /// are kept under its first one, so that they can neither go early nor leak.
    ///
    /// # Errors
    ///
    /// [`Error::Pinned`] if it is pinned already; [`Error::NoSuchSegment`] names the one of the
    /// two that is gone; [`Error::CircularPin`] if the parent is itself kept by this segment.
    pub fn pin_segment_under(
        &self,
        handle: SegmentHandle,
        parent: SegmentHandle,
    ) -> Result<(), Error> {
        self.with_control(|| {
            let above = slots::find(&self.control, parent).ok_or(Error::NoSuchSegment(parent))?;
            let slot = slots::find(&self.control, handle).ok_or(Error::NoSuchSegment(handle))?;
            if slot.word().pinned {
                return Err(Error::Pinned(true));
            }
            if self.is_kept_by(parent, handle) {
                return Err(Error::CircularPin);
            }
            // The mark first: a child without one would be missed when its parent goes.
            above.set(Word { parent: true, ..above.word() });
            slot.record.parent.store(parent.get(), Ordering::Relaxed);
            slot.set(Word { pinned: true, ..slot.word() });
            Ok(())
        })?
    }

    /// Whether a segment is the other one, or pinned under it however indirectly; under the
    /// control lock.
    fn is_kept_by(&self, segment: SegmentHandle, other: SegmentHandle) -> bool {
        let mut at = Some(segment);
        // No chain is longer than there are slots.
        for _ in 0..self.control.layout.max_segments {
            let Some(handle) = at else { return false };
            if handle == other {
                return true;
            }
            at = slots::find(&self.control, handle).filter(|slot| slot.word().pinned).and_then(
                |slot| SegmentHandle::from_raw(slot.record.parent.load(Ordering::Relaxed)),
            );
        }
        false
    }

    /// Undoes `pin_segment`, by handle, attached or not; may destroy the segment.
    ///
    /// # Errors
    ///
    /// [`Error::Pinned`] if it is not pinned, [`Error::NoSuchSegment`], [`Error::Forked`];
    /// [`Error::Provider`] if the object could not be removed: it is not pinned all the same, and
    /// the next reaper tries again. That it is another user's to remove is no error: that user's
    /// next reaper does.
    #[doc(alias = "dsm_unpin_segment")]
    pub fn unpin_segment(&self, handle: SegmentHandle) -> Result<(), Error> {
        let (slot, retired) = self.with_control(|| {
            let slot = slots::find(&self.control, handle).ok_or(Error::NoSuchSegment(handle))?;
            let word = slot.word();
            if !word.pinned {
                return Err(Error::Pinned(false));
            }
            slot.set(Word { pinned: false, ..word });
            Ok((slot, slots::retire_if_unused(&self.control, &slot)))
        })??;
        self.destroy_after(&slot, retired)
    }

    /// How many processes have the segment attached (those that died and were not swept yet
    /// among them); `None` if there is no such segment.
    pub fn attached_processes(&self, handle: SegmentHandle) -> Option<u32> {
        let count = self.with_control(|| {
            let slot = slots::find(&self.control, handle)?;
            Some(slot.attached.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum())
        });
        count.unwrap_or(None)
    }

    /// Whether any process still has a segment attached that was pinned under `parent` and is not
    /// any more. The dead count until they are swept.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`], [`Error::Lock`].
    pub fn is_released_in_use(&self, parent: SegmentHandle) -> Result<bool, Error> {
        self.with_control(|| {
            self.control.segments().any(|slot| {
                let word = slot.word();
                word.state == State::Live
                    && !word.pinned
                    && slot.record.parent.load(Ordering::Relaxed) == parent.get()
                    && slot.is_attached()
            })
        })
    }

    /// Unmaps the address ranges that [`Segment::detach_to_blank`] left behind in the name of
    /// `owner`; in a forked child, nothing.
    ///
    /// # Safety
    ///
    /// Nothing may use those ranges any more.
    pub unsafe fn release_blanks(&self, owner: RangeOwner) {
        if self.is_open() {
            // SAFETY: the caller's promise.
            unsafe { self.platform.provider.release_blanks(owner) };
        }
    }
}
