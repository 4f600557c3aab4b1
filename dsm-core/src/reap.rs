//! Sweeping what dead processes and threads left.
//!
//! Three steps, each of which anyone may do, and do again after another's death:
//!
//! 1. **Prove** (no lock): a process or thread that the platform proves dead has its slot marked,
//!    by a compare-and-swap that its next tenant's generation would defeat. Before anything that
//!    the marked left is touched, the death count is raised (see [`deaths`](crate::deaths)).
//! 2. **Sweep** (control lock): for each marked participant, or participant of a marked process,
//!    its mark is cleared in every lock its `held[]` says it may share, then its slot is freed.
//!    Only the lock knows how: of a kind of lock that is not known here nothing is cleared, and the
//!    participant stays for somebody else to sweep, as do its process and all that has attached.
//!    Locks it held alone keep its id: their next owner finds the id dead and recovers; who
//!    sleeps at any of them is woken to do so at once. Then the
//!    attachment bits of dead processes are cleared; then what nobody holds any more is retired:
//!    segments without a bit or a pin, records whose creator died, pins whose parent is gone.
//!    Only then the process slots are freed: the order is that of dependence, so that a reaper
//!    killed anywhere leaves what the next one needs to see.
//! 3. **Destroy** (no lock while the system works): retired segments' objects are removed, after
//!    a look at their identity, and their slots freed under the lock. What the system leaves to
//!    another user (whose object it is, in a directory like `/dev/shm`) stays retired until that
//!    user comes by here.
//!
//! A segment that must be mapped to clear a reader's bit is mapped under the control lock; if it
//! cannot be, its participant and process stay marked for another time. No step calls user code.
//!
//! Where a lock lies is read from shared memory, which a peer may have damaged, and so is the size
//! of its segment. What is touched lies within the mapping as this process knows it.

use core::ptr::NonNull;

use crate::control::header::{MOST_PROCESSES, PAGE};
use crate::control::segment::{SegmentSlot, State, Word};
use crate::control::{Control, ControlLock, ELECTOR, lock_size, participant_state, process, slots};
use crate::env::Environment;
use crate::error::{ErrorKind, ProviderFailure};
use crate::handle::{LockAddress, ObjectId, SegmentHandle};
use crate::lock::kind::Hold;
use crate::namespace::{Error, ProcessLocal};
use crate::participant::ParticipantSlot;
use crate::planted::{Bug, planted};
use crate::provider::ErasedProvider;
use crate::sync::Ordering;

/// Whoever acts on a control segment: a process in it, or the holder of the election.
pub(crate) trait Actor {
    fn control(&self) -> &Control<'_>;
    fn provider(&self) -> &dyn ErasedProvider;
    fn local(&self) -> &ProcessLocal<'_>;
    /// Does `work` under the control lock.
    fn locked<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error>;
}

/// All three steps. Returns the number of participants freed.
pub(crate) fn reap<A: Actor>(actor: &A) -> Result<u32, Error> {
    prove(actor.control());
    let freed = if planted(Bug::ReaperWithoutClaim) {
        sweep(actor)
    } else {
        actor.locked(|| sweep(actor))?
    };
    destroy_retired(actor)?;
    Ok(freed)
}

/// All three steps, for somebody who needs a slot. An object that can't be removed stays retired,
/// which is no reason to do without the slots that were freed.
pub(crate) fn make_room<A: Actor>(actor: &A) -> Result<(), Error> {
    prove(actor.control());
    actor.locked(|| sweep(actor))?;
    let _ = destroy_retired(actor);
    Ok(())
}

/// Marks who is proven dead.
pub(crate) fn prove(control: &Control<'_>) {
    for (index, slot) in control.processes.iter().enumerate() {
        let (generation, state) = slot.get();
        if state == process::LIVE && control.process_is_dead(index as u32, generation) {
            slot.mark_dead(generation);
        }
    }
    for slot in &control.participants[1..] {
        let (generation, _) = process::unpack(slot.state.load(Ordering::Acquire));
        control.note_ended(slot, generation);
    }
}

/// Whether that tenant of a process slot is not known to be dead.
fn is_live(control: &Control<'_>, index: u32, generation: u32) -> bool {
    control
        .processes
        .get(index as usize)
        .is_some_and(|slot| slot.get() == (generation, process::LIVE))
}

/// A set of process slots.
struct Processes([u64; MOST_PROCESSES as usize / 64]);

impl Processes {
    fn add(&mut self, index: u32) {
        if let Some(word) = self.0.get_mut(index as usize / 64) {
            *word |= 1 << (index % 64);
        }
    }
    fn has(&self, index: u32) -> bool {
        self.0[index as usize / 64] & 1 << (index % 64) != 0
    }
}

/// Step 2, under the control lock.
fn sweep<A: Actor>(actor: &A) -> u32 {
    let control = actor.control();
    let mut freed = 0;
    // Processes that are alive, or whose participants could not all be swept.
    let mut kept = Processes([0; MOST_PROCESSES as usize / 64]);
    for slot in &control.participants[1..] {
        if !is_marked(control, slot) {
            continue;
        }
        announce(control);
        let (generation, _) = process::unpack(slot.state.load(Ordering::Acquire));
        let (process, _) = Control::process_of(slot);
        let free = process::pack(generation, participant_state::FREE);
        if planted(Bug::SlotFreedBeforeSweep) {
            slot.state.store(free, Ordering::Release);
        }
        if sweep_participant(actor, slot, process) {
            slot.state.store(free, Ordering::Release);
            freed += 1;
        } else {
            kept.add(process);
        }
    }
    for (index, slot) in control.processes.iter().enumerate() {
        match slot.get().1 {
            process::LIVE => kept.add(index as u32),
            process::DEAD => announce(control),
            _ => {}
        }
    }
    sweep_segments(control, &kept);
    for (index, slot) in control.processes.iter().enumerate() {
        let (generation, state) = slot.get();
        if state == process::DEAD && !kept.has(index as u32) {
            slot.state.store(process::pack(generation, process::FREE), Ordering::Release);
        }
    }
    if planted(Bug::DeathAnnouncedLate) {
        control.header.deaths.raise();
    }
    freed
}

/// Raises the death count, after a mark was seen and before anything is done because of it.
fn announce(control: &Control<'_>) {
    if !planted(Bug::DeathAnnouncedLate) {
        control.header.deaths.raise();
    }
}

/// Whether a participant slot's tenant, if it has one, is marked as dead, or its process is.
fn is_marked(control: &Control<'_>, slot: &ParticipantSlot) -> bool {
    let state = process::unpack(slot.state.load(Ordering::Acquire)).1;
    let (process, tenancy) = Control::process_of(slot);
    state != participant_state::FREE
        && (state == participant_state::ENDED || !is_live(control, process, tenancy))
}

/// Sweeps the other participants of `process` that are registered or orphaned, as the process
/// leaves; under the control lock. Returns how many of them were still registered.
pub(crate) fn sweep_own<A: Actor>(actor: &A, process: (u32, u32), me: u16) -> u32 {
    let control = actor.control();
    let own = || {
        let all = control.participants.iter().enumerate().skip(ELECTOR as usize + 1);
        let others = all.filter(|(index, _)| *index != me as usize).map(|(_, slot)| slot);
        others.filter(|slot| Control::process_of(slot) == process)
    };
    let mut registered = 0;
    for slot in own() {
        let (generation, state) = process::unpack(slot.state.load(Ordering::Acquire));
        registered += u32::from(state == participant_state::LIVE);
        Control::end(slot, generation);
    }
    // Threads that go on all the same find out.
    control.header.deaths.raise();
    for slot in own() {
        let (generation, state) = process::unpack(slot.state.load(Ordering::Acquire));
        if state != participant_state::FREE && sweep_participant(actor, slot, process.0) {
            slot.state.store(process::pack(generation, participant_state::FREE), Ordering::Release);
        }
    }
    registered
}

/// Clears a participant's marks in the locks it may share, and wakes those who wait for it at any
/// lock. False if a mark could not be reached, or is in a lock of a kind that is not known here.
fn sweep_participant<A: Actor>(actor: &A, slot: &ParticipantSlot, process: u32) -> bool {
    let control = actor.control();
    let index = control.participants.iter().position(|other| core::ptr::eq(other, slot));
    let Some(index) = index else { return false };
    let (most, env) = (control.layout.max_participants, control.env);
    slot.holds().all(|(address, hold)| {
        let Hold::Shared(identity) = hold else {
            // The owner's word names its owner. Whether it can be reached matters to sleepers only.
            let _ = with_lock(actor, address, process, lock_size(most), |at| {
                wake_sleepers(at.cast(), most, env);
            });
            return true;
        };
        if planted(Bug::DeadReaderKept) {
            return true;
        }
        let known = actor.local().kind(identity);
        if planted(Bug::UnknownKindForgotten) && known.is_none() {
            return true;
        }
        let Some(kind) = known else { return false };
        with_lock(actor, address, process, kind.size_for(most), |at| {
            // SAFETY: `with_lock` gives mapped memory of that length; the mark belongs to a
            // participant that is gone, and no other gets the slot under the control lock.
            unsafe { kind.clear_reader(at, most, index as u16, env) };
        })
        .is_ok()
    })
}

/// Wakes those who sleep at a reader-writer lock, if that is what is there.
fn wake_sleepers(at: NonNull<ControlLock>, max_participants: u32, env: &dyn Environment) {
    // SAFETY: `with_lock` gives mapped memory of a lock's length, and any bytes are atomics.
    let is_lock = unsafe { ControlLock::has_length_for(at, max_participants) };
    if is_lock && !planted(Bug::SleepersUnwoken) {
        // SAFETY: as above.
        unsafe { ControlLock::wake_sleepers(at, env) };
    }
}

/// Calls `work` with the place of the lock at `address`, of `len` bytes and aligned to 64, mapping
/// its segment if this process has not. Does nothing if the process did not have the segment
/// attached: then the lock is gone, since a process stays attached as long as a thread of it has a
/// record of a lock there (see `namespace::release`).
fn with_lock<A: Actor>(
    actor: &A,
    address: LockAddress,
    process: u32,
    len: usize,
    work: impl FnOnce(NonNull<u8>),
) -> Result<(), ProviderFailure> {
    let control = actor.control();
    let Some(slot) = control.segment(address.slot()) else { return Ok(()) };
    let Some(handle) = slot.handle() else { return Ok(()) };
    let attached = process < control.layout.max_processes && slot.is_attached_by(process);
    let Ok(offset) = usize::try_from(address.offset()) else { return Ok(()) };
    let end = offset.saturating_add(len);
    if slot.word().state != State::Live || !attached || end > slot.size() {
        return Ok(());
    }
    let work = |base: NonNull<u8>, len: usize| {
        if end > len {
            return;
        }
        // SAFETY: the lock's end was found to lie within the mapping.
        let at = unsafe { base.add(offset) };
        if at.addr().get() % 64 == 0 {
            work(at);
        }
    };
    with_memory(actor, &slot, handle, work)
}

/// Calls `work` with the first byte and the length of a segment's memory, which is mapped for that
/// if this process has not. Does nothing if the object is gone. What this process has attached is
/// as before then, and no callback of a user's is called.
pub(crate) fn with_memory<A: Actor>(
    actor: &A,
    slot: &SegmentSlot<'_>,
    handle: SegmentHandle,
    work: impl FnOnce(NonNull<u8>, usize),
) -> Result<(), ProviderFailure> {
    if handle.is_main_region() {
        let control = actor.control();
        if let Some((page, count)) = control.pages_of(slot) {
            work(control.page_address(page), count * PAGE);
        }
        return Ok(());
    }
    let record = actor.local().segments.get(handle.slot() as usize);
    // Somebody who has the record is mapping or unmapping it: a mapping of our own does as well.
    let mapped = record.and_then(|record| record.mapped.try_lock());
    if let Some(mapped) = mapped.filter(|mapped| mapped.handle == handle.get()) {
        if let Some(base) = NonNull::new(mapped.base) {
            work(base, mapped.len);
            return Ok(());
        }
    }
    let mapping = match actor.provider().attach(handle, slot.id()) {
        Ok(mapping) => mapping,
        // Removed from outside: nobody can map it any more.
        Err(failure) if matches!(failure.kind, ErrorKind::NotFound | ErrorKind::Foreign) => {
            return Ok(());
        }
        Err(failure) => return Err(failure),
    };
    work(mapping.base, mapping.len);
    // SAFETY: mapped above, and `work` keeps nothing.
    unsafe { actor.provider().detach(mapping) };
    Ok(())
}

/// Clears the attachments of all processes but `kept` and retires what nobody holds.
fn sweep_segments(control: &Control<'_>, kept: &Processes) {
    for slot in control.segments() {
        for (word, kept) in slot.attached.iter().zip(kept.0) {
            let bits = word.load(Ordering::Relaxed);
            if bits & !kept != 0 {
                word.store(bits & kept, Ordering::Release);
            }
        }
        let (generation, creator) = process::unpack(slot.record.creator.load(Ordering::Relaxed));
        if slot.word().state == State::Creating && !is_live(control, creator, generation) {
            announce(control);
            // The object may exist, and nothing is known of it but its name.
            slot.set_id(ObjectId::default());
            slots::retire(control, &slot);
        }
    }
    // Until nothing changes, since a parent may itself be pinned under another.
    let mut changed = true;
    while core::mem::take(&mut changed) {
        for slot in control.segments() {
            let word = slot.word();
            if word.state != State::Live {
                continue;
            }
            if word.pinned && slots::is_parent_gone(control, &slot) {
                slot.set(Word { pinned: false, ..word });
            }
            changed |= slots::retire_if_unused(control, &slot).is_some();
        }
    }
}

/// Takes everything out of a namespace in which nobody lives: what it lists is retired, its dead
/// hold nothing, its roots are zero. Under the control lock, of the election's holder; killed
/// anywhere, it is done again from the start.
pub(crate) fn empty(control: &Control<'_>) {
    announce(control);
    for slot in &control.participants[ELECTOR as usize + 1..] {
        slot.held.iter().for_each(|held| held.store(0, Ordering::Relaxed));
    }
    for slot in control.segments() {
        let word = slot.word();
        slot.clear_attached();
        match word.state {
            State::Free | State::Moribund => continue,
            // The object may exist, and nothing is known of it but its name.
            State::Creating => slot.set_id(ObjectId::default()),
            State::Live => slot.set(Word { pinned: false, ..word }),
        }
        slots::retire(control, &slot);
    }
    control.header.roots.iter().for_each(|root| root.store(0, Ordering::Relaxed));
}

/// Step 3, for every retired slot.
///
/// # Errors
///
/// The last one met; the others were tried all the same, and the slots stay retired. That an object
/// is another user's to remove is none.
pub(crate) fn destroy_retired<A: Actor>(actor: &A) -> Result<(), Error> {
    let mut result = Ok(());
    for slot in actor.control().segments() {
        if slot.word().state == State::Moribund {
            if let Err(error) = destroy_one(actor, &slot) {
                result = Err(error);
            }
        }
    }
    result
}

/// Step 3, for one slot that may be retired.
pub(crate) fn destroy_one<A: Actor>(actor: &A, slot: &SegmentSlot<'_>) -> Result<(), Error> {
    let word = slot.word();
    let (handle, id) = (slot.handle(), slot.id());
    // Read without the lock: what was read belongs together if the slot is still the same.
    if word.state != State::Moribund || slot.word() != word {
        return Ok(());
    }
    if planted(Bug::FreedBeforeRemoved) {
        actor.locked(|| slots::free_slot(actor.control(), slot))?;
    }
    if let Some(handle) = handle {
        match actor.provider().destroy(handle, id) {
            Ok(()) => {}
            // The name means something else by now, which is not ours to remove.
            Err(failure) if failure.kind == ErrorKind::Foreign => {}
            Err(failure) if failure.kind == ErrorKind::PermissionDenied => return Ok(()),
            Err(failure) => return Err(Error::Provider(failure)),
        }
    }
    actor.locked(|| {
        if slot.word() == word || planted(Bug::FreesUnlooked) {
            slots::free_slot(actor.control(), slot);
        }
    })
}
