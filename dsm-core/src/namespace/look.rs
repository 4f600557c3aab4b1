//! What can be learned about other participants, and about addresses; a look into a segment by who
//! need not have it.

use core::ptr::NonNull;

use super::{Error, Namespace, acquire};
use crate::control::{Control, process, recorded_id, same_object, slots};
use crate::env::ProcessProof;
use crate::error::ErrorKind;
use crate::handle::{ParticipantId, SegmentHandle};
use crate::participant::ParticipantSlot;
use crate::provider::{ProviderError, Root};
use crate::reap;
use crate::sync::{AtomicU32, Ordering};

impl Namespace<'_> {
    /// Whether its name still means the control object that this process has open. Somebody may
    /// have removed that (`rm`): then whoever opens the name gets another namespace, and who is in
    /// this one stays among those who have it. Maps what the name means for a moment; takes no
    /// lock.
    ///
    /// # Errors
    ///
    /// [`Error::Provider`] if that can't be seen now; [`Error::Forked`].
    pub fn is_named<R: Root>(&self, root: &R) -> Result<bool, Error> {
        if !self.is_open() {
            return Err(Error::Forked);
        }
        let mapping = match root.peek() {
            Ok(mapping) => mapping,
            // Ours has a size.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Unfinished) => {
                return Ok(false);
            }
            Err(e) => return Err(Error::Provider(e.failure())),
        };
        // SAFETY: mapped just now.
        let recorded = unsafe { recorded_id(&mapping) };
        // SAFETY: mapped by this root above, and used no more.
        unsafe { root.unmap(mapping) };
        Ok(recorded.is_some_and(|id| same_object(id, self.control.header.id())))
    }

    /// How many segment slots are taken, and how many there are: `max_segments`, as the namespace
    /// was created. A look in passing: takes no lock.
    #[must_use]
    pub fn segment_slots(&self) -> (u32, u32) {
        (self.control.slots_taken.count() as u32, self.control.layout.max_segments)
    }

    /// In which segment an address of this process lies, and how far from its start; `None` if in
    /// none that this process has attached. Linear in the number of segment slots that it has ever
    /// used.
    #[must_use]
    pub fn place_of(&self, address: *const u8) -> Option<(SegmentHandle, u64)> {
        if !self.is_open() {
            return None;
        }
        self.local.used().iter().find_map(|record| {
            let mapped = acquire(&record.mapped, self.platform.env);
            let handle = SegmentHandle::from_raw(mapped.handle)?;
            let offset = address.addr().checked_sub(mapped.base.addr())?;
            (offset < mapped.len).then_some((handle, offset as u64))
        })
    }

    /// Calls `work` with the first byte and the length of a segment's memory, whether this process
    /// has attached it or not; `None` if there is no such segment any more. What the process has
    /// attached stays as it was. `work` runs under the control lock, so that the segment can't go
    /// meanwhile: it must use the memory only, and keep nothing of it.
    ///
    /// # Errors
    ///
    /// [`Error::Provider`] if the segment is there and can't be mapped now; [`Error::Forked`].
    pub fn visit_segment<T>(
        &self,
        handle: SegmentHandle,
        work: impl FnOnce(NonNull<u8>, usize) -> T,
    ) -> Result<Option<T>, Error> {
        let visited = self.with_control(|| {
            let Some(slot) = slots::find(&self.control, handle) else { return Ok(None) };
            let (size, mut result) = (slot.size(), None);
            reap::with_memory(self, &slot, handle, |base, len| {
                result = Some(work(base, len.min(size)));
            })?;
            Ok(result)
        })?;
        visited.map_err(Error::Provider)
    }

    /// What a participant says it waits for, in terms of the crate that set it
    /// ([`ParticipantSlot::waits_for`]); 0 for nothing, or if its slot has another tenant by now.
    #[must_use]
    pub fn waits_for(&self, who: ParticipantId) -> u64 {
        let Some(slot) = self.tenancy(who) else { return 0 };
        let waits_for = slot.waits_for.load(Ordering::SeqCst);
        if self.tenancy(who).is_some() { waits_for } else { 0 }
    }

    /// The process that a participant belongs to; `None` if its slot has another tenant by now.
    #[must_use]
    pub fn process_of(&self, who: ParticipantId) -> Option<ProcessProof> {
        let slot = self.tenancy(who)?;
        let (process, _) = Control::process_of(slot);
        let proof = self.control.processes.get(process as usize)?.proof.load();
        self.tenancy(who).map(|_| proof)
    }

    /// The processes in the namespace, this one included, and those that were found dead until all
    /// that they left is swept: slot, generation of the slot, and who it is.
    pub fn processes(&self) -> impl Iterator<Item = (u32, u32, ProcessProof)> + '_ {
        self.control.processes.iter().zip(0..).filter_map(|(slot, index)| {
            let now = slot.get();
            let proof = slot.proof.load();
            (now.1 != process::FREE && slot.get() == now).then_some((index, now.0, proof))
        })
    }

    /// A word that moves, and whose sleepers are woken, whenever a process has joined.
    #[must_use]
    pub fn joined(&self) -> &AtomicU32 {
        &self.control.header.joined
    }

    /// The slot, if `who` is its tenant.
    fn tenancy(&self, who: ParticipantId) -> Option<&ParticipantSlot> {
        let slot = self.control.participants.get(who.index as usize)?;
        let (generation, _) = process::unpack(slot.state.load(Ordering::Acquire));
        (generation == who.generation).then_some(slot)
    }
}
