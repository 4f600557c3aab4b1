//! What can be learned about other participants.

use super::Namespace;
use crate::control::{Control, process};
use crate::env::ProcessProof;
use crate::handle::ParticipantId;
use crate::participant::ParticipantSlot;
use crate::sync::{AtomicU32, Ordering};

impl Namespace<'_> {
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

    /// The processes in the namespace, this one included, as far as nobody has found them dead:
    /// slot, generation of the slot, and who it is.
    pub fn processes(&self) -> impl Iterator<Item = (u32, u32, ProcessProof)> + '_ {
        self.control.processes.iter().zip(0..).filter_map(|(slot, index)| {
            let now = slot.get();
            let proof = slot.proof.load();
            (now.1 == process::LIVE && slot.get() == now).then_some((index, now.0, proof))
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
