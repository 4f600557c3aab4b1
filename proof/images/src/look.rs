//! What a victim was about when it died, as far as shared memory tells.

use dsm_core::handle::LockAddress;
use dsm_core::inspect::{Inspector, ParticipantInfo};
use dsm_core::lock::HeldMode;
use dsm_core::provider::Root;

use crate::case::{Case, What};
use crate::process::Process;
use crate::system;
use crate::tally::Tally;

/// Marks the kinds of point that an image is of, before anything is recovered.
pub(crate) fn mark_kinds(tally: &Tally, case: &Case) {
    let victim = case.mortals[0];
    if system::look(|system| system.election == victim) {
        tally.mark("the elector works");
    }
    let process = Process::again(victim);
    let Ok(mapping) = process.peek() else { return };
    // SAFETY: the arena is mapped for good, and nobody else runs.
    let inspector = match unsafe { Inspector::new(&mapping, &process) } {
        Ok(Some(inspector)) => inspector,
        Ok(None) | Err(_) => {
            tally.mark("the control segment is unfinished");
            return;
        }
    };
    if inspector.segments().any(|segment| !segment.settled) {
        tally.mark("a segment is half made or half removed");
    }
    for slot in inspector.processes().filter(|slot| slot.proof.pid == victim) {
        tally.mark("a process slot is taken");
        // The process as such is a participant of its own, which takes the control lock.
        let all: Vec<_> = inspector.participants().filter(|p| p.process == slot.slot).collect();
        if !all.is_empty() {
            tally.mark("a participant is registered");
        }
        mark_locks(tally, case, &all);
    }
}

fn mark_locks(tally: &Tally, case: &Case, participants: &[ParticipantInfo]) {
    let held: Vec<_> = participants.iter().flat_map(|p| p.held.iter().flatten()).collect();
    let is = |address: &LockAddress, what: What| {
        let offset = address.offset();
        case.places
            .iter()
            .any(|p| p.what == what && p.slot == address.slot() && p.offsets.contains(&offset))
    };
    let count = |what: What| held.iter().filter(|(address, _)| is(address, what)).count();
    let control = held.iter().any(|(address, _)| address.slot() == LockAddress::CONTROL);
    let (area, table) = (count(What::Area), count(What::Table));
    let kinds = [
        (control, "holds the control lock"),
        (control && held.len() > 1, "holds the control lock and another"),
        (held.iter().any(|(_, mode)| *mode == HeldMode::Shared), "holds a lock shared"),
        (area > 0, "holds a lock of the area"),
        (area > 1, "holds both locks of the area"),
        (table > 0, "holds a partition"),
        (table > 0 && area > 0, "holds a partition and one of the area"),
        (count(What::Segment) > 0, "holds a lock of the segment"),
    ];
    kinds.iter().filter(|(is, _)| *is).for_each(|(_, kind)| tally.mark(kind));
}

/// How many processes the namespace lists.
pub(crate) fn listed_processes(process: &'static Process) -> usize {
    inspect(process, |inspector| inspector.processes().count())
}

/// What a look from outside finds; nothing if there is no namespace.
pub(crate) fn inspect<T: Default>(
    process: &'static Process,
    find: impl FnOnce(&Inspector<'_>) -> T,
) -> T {
    let Ok(mapping) = process.peek() else { return T::default() };
    // SAFETY: the arena is mapped for good.
    match unsafe { Inspector::new(&mapping, process) } {
        Ok(Some(inspector)) => find(&inspector),
        _ => T::default(),
    }
}
