//! What a victim was about when it died, as far as the control segment tells.

use dsm_core::handle::{LockAddress, ParticipantId};
use dsm_core::inspect::Inspector;
use dsm_core::lock::HeldMode;
use dsm_core::provider::Mapping;
use sim::{HeapMachine, HeapProcess};

use crate::found::mark;

/// Looks from outside; nothing if there is no finished control segment.
pub(crate) fn inspect<T>(
    machine: &HeapMachine,
    process: &HeapProcess,
    look: impl FnOnce(&Inspector<'_>) -> T,
) -> Option<T> {
    let (base, len) = machine.control_bytes()?;
    let mapping = Mapping { base, len, token: 0 };
    // SAFETY: nobody else runs, so that the object stays while it is looked at.
    let inspector = unsafe { Inspector::new(&mapping, process) }.ok()??;
    Some(look(&inspector))
}

/// The locks that a process's participants hold, or are about to.
pub(crate) fn held_by(process: &HeapProcess) -> Vec<(ParticipantId, LockAddress, HeldMode)> {
    let held = inspect(process.machine(), process, |inspector| {
        let slots = inspector.processes().filter(|slot| slot.proof.pid == process.pid());
        let slots: Vec<_> = slots.map(|slot| slot.slot).collect();
        let all = inspector.participants().filter(|p| slots.contains(&p.process));
        all.flat_map(|p| p.held.into_iter().flatten().map(move |(at, mode)| (p.id, at, mode)))
            .collect()
    });
    held.unwrap_or_default()
}

/// Marks the kinds that every model may pass.
pub(crate) fn mark_kinds(process: &HeapProcess) {
    let machine = process.machine();
    if machine.elector() == Some(process.pid()) {
        mark("the elector works");
    }
    let looked = inspect(machine, process, |inspector| {
        if inspector.segments().any(|segment| !segment.settled) {
            mark("a segment is half made or half removed");
        }
        if inspector.processes().all(|slot| slot.proof.pid != process.pid()) {
            mark("no process slot is taken");
        }
        if inspector.processes().any(|slot| slot.dead && slot.proof.pid != process.pid()) {
            mark("somebody is dead already");
        }
    });
    if looked.is_none() {
        mark("there is no finished control segment");
    }
    let held = held_by(process);
    if held.is_empty() {
        mark("holds no lock");
    }
    if held.iter().any(|(_, at, _)| at.slot() == LockAddress::CONTROL) {
        mark("holds the control lock");
    }
    if held.len() > 1 {
        mark("holds two locks");
    }
    if held.iter().any(|(_, _, mode)| *mode == HeldMode::Shared) {
        mark("holds a lock shared");
    }
}
