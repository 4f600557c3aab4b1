//! The control segment: what a namespace is, in shared memory.
//!
//! # Layout
//!
//! ```text
//! Header            magic, version, fingerprint, sizes, where the parts lie, root words
//! control lock      as long as max_participants asks for
//! ProcessSlot       x max_processes
//! ParticipantSlot   x max_participants; 0 is the holder of the election
//! SegmentSlot       x max_segments: a record and a bit per process that has it attached
//! indexes           which segment slots, then which pages of the main region are taken
//! main region       from a page boundary to the end
//! ```
//!
//! # Truth and index
//!
//! The truth is each slot's state word (and for segments the attachment bits). The indexes and
//! the hints in the header follow from the segment slots, and are rebuilt by whoever takes the
//! control lock over from a dead owner ([`Control::rebuild`]).
//!
//! # Who writes what
//!
//! - Process slots: see [`process`].
//! - Participant slots: FREE to LIVE, LIVE to FREE or ORPHANED, ENDED to FREE under the control
//!   lock; LIVE to ENDED by a compare-and-swap of whoever can prove that the thread (for
//!   participant 0, the process) is gone. ORPHANED means that the thread ended in order but leaked
//!   a guard: its locks stay held until its process dies. The slot's other words are its tenant's
//!   alone.
//! - Segment slots, indexes, hints: under the control lock; see [`segment`].
//! - Participant 0: the holder of the election alone. Its generation rises with each election, so
//!   that what an earlier elector left locked is recognised as a dead one's.
//!
//! # Death
//!
//! Who is dead is marked before anybody makes use of it: in the process slot (DEAD), or, of a
//! thread alone, and of the elector, in the participant slot (ENDED). After the mark the death
//! count is raised, and after that others may act: see [`deaths`](crate::deaths).
//!
//! Everything a transition needs is written before its one store, so that a kill leaves either
//! the old state or the new one. What the dead leave is swept by [`reap`](crate::reap); a killed
//! reaper's work is done again from the start.

use core::ptr::NonNull;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::time::Duration;

use crate::deaths::DeathCount;
use crate::env::{Environment, ProcessProof, ThreadProof};
use crate::handle::{LockAddress, ObjectId, ParticipantId};
use crate::lock::rw::RwLock;
use crate::lock::{Acquired, LockError, LockKind, LockRef, Patience, RawLock};
use crate::namespace::Error;
use crate::participant::{Participant, ParticipantLocal, ParticipantSlot, Peers};
use crate::planted::{Bug, planted};
use crate::provider::Mapping;
use crate::sync::AtomicU64;

pub(crate) mod bitmap;
pub(crate) mod header;
pub(crate) mod process;
pub(crate) mod segment;
mod setup;
pub(crate) mod slots;

use bitmap::Bitmap;
use header::{Header, Layout, PAGE};
use process::ProcessSlot;
use segment::{SegmentRecord, SegmentSlot, State};

/// The lock of the control segment.
pub(crate) type ControlLock = RwLock;

/// States of a participant slot, below its generation; see the module's essay.
pub(crate) mod participant_state {
    pub(crate) const FREE: u32 = 0;
    pub(crate) const LIVE: u32 = 1;
    pub(crate) const ORPHANED: u32 = 2;
    pub(crate) const ENDED: u32 = 3;
}

/// Index of the participant that the holder of the election acts as.
pub(crate) const ELECTOR: u16 = 0;

/// Bytes of a lock for so many participants.
pub(crate) fn lock_size(max_participants: u32) -> usize {
    ControlLock::size_for(max_participants)
}

/// How long an eviction waits for the control lock before its caller looks again.
const EVICTION: Duration = Duration::from_millis(10);

/// A mapped and validated control segment.
#[derive(Clone, Copy)]
pub(crate) struct Control<'a> {
    pub(crate) base: NonNull<u8>,
    pub(crate) header: &'a Header,
    pub(crate) layout: Layout,
    pub(crate) processes: &'a [ProcessSlot],
    pub(crate) participants: &'a [ParticipantSlot],
    /// Which segment slots are not FREE. An index.
    pub(crate) slots_taken: Bitmap<'a>,
    /// Which pages of the main region are taken. An index.
    pub(crate) pages_taken: Bitmap<'a>,
    pub(crate) env: &'a dyn Environment,
}

// SAFETY: `base` points to shared memory, which is accessed through atomics only; everything else
// in here is `Send + Sync` by itself.
unsafe impl Send for Control<'_> {}
// SAFETY: as above.
unsafe impl Sync for Control<'_> {}

impl<'a> Control<'a> {
    /// A view of the mapping.
    ///
    /// # Safety
    ///
    /// `base` must be a control segment of this layout, built by [`Control::initialise`], mapped
    /// for `'a`.
    unsafe fn view(base: NonNull<u8>, layout: Layout, env: &'a dyn Environment) -> Self {
        // SAFETY: the caller's promise covers every part of the layout, and `array` gets the
        // counts that the offsets were computed with; likewise for the blocks below.
        let processes = unsafe { array(base, layout.processes_at, layout.max_processes as usize) };
        // SAFETY: see above.
        let participants =
            unsafe { array(base, layout.participants_at, layout.max_participants as usize) };
        let slots = layout.max_segments as usize;
        let pages = layout.main_len / PAGE;
        // SAFETY: see above.
        let slot_words = unsafe { array(base, layout.indexes_at, Layout::words(slots)) };
        let pages_at = layout.indexes_at + size_of_val(slot_words);
        // SAFETY: see above.
        let page_words = unsafe { array(base, pages_at, Layout::words(pages)) };
        // SAFETY: the header is the first of the parts.
        let header = unsafe { base.cast::<Header>().as_ref() };
        Self {
            base,
            header,
            layout,
            processes,
            participants,
            slots_taken: Bitmap::new(slot_words, slots),
            pages_taken: Bitmap::new(page_words, pages),
            env,
        }
    }

    /// The segment slot of that index; `None` beyond the last.
    #[inline]
    pub(crate) fn segment(&self, index: u32) -> Option<SegmentSlot<'a>> {
        if index >= self.layout.max_segments {
            return None;
        }
        let at = self.layout.segments_at + index as usize * self.layout.segment_stride;
        // SAFETY: the index was checked, so the slot lies within the mapped control segment.
        let record = unsafe { &array::<SegmentRecord>(self.base, at, 1)[0] };
        let words = Layout::words(self.layout.max_processes as usize);
        // SAFETY: the stride covers the record and these words behind it.
        let attached = unsafe { array(self.base, at + size_of::<SegmentRecord>(), words) };
        Some(SegmentSlot { index, record, attached })
    }

    /// All segment slots.
    pub(crate) fn segments(self) -> impl Iterator<Item = SegmentSlot<'a>> {
        (0..self.layout.max_segments).filter_map(move |index| self.segment(index))
    }

    /// First byte of the main region's page.
    pub(crate) fn page_address(&self, page: u64) -> NonNull<u8> {
        let offset = self.layout.main_at + page as usize * PAGE;
        debug_assert!(offset <= self.layout.total);
        // SAFETY: pages that are handed out lie within the main region.
        unsafe { self.base.add(offset) }
    }

    /// The pages of a main-region slot, if they lie within the region.
    pub(crate) fn pages_of(&self, slot: &SegmentSlot<'_>) -> Option<(u64, usize)> {
        self.pages_for(slot, slot.size())
    }

    /// As [`pages_of`](Self::pages_of), of a slot whose size was read before. A peer that damages
    /// it may do so at any time: what is checked must be what is used.
    pub(crate) fn pages_for(&self, slot: &SegmentSlot<'_>, size: usize) -> Option<(u64, usize)> {
        let page = slot.record.page.load(Relaxed);
        let count = size.div_ceil(PAGE);
        let all = (self.layout.main_len / PAGE) as u64;
        (page.checked_add(count as u64)? <= all).then_some((page, count))
    }

    /// The control lock.
    #[inline]
    pub(crate) fn lock(&self) -> LockRef<'a, ControlLock> {
        // SAFETY: the lock is one of the parts of the layout, aligned to 64.
        let at = unsafe { self.base.add(self.layout.lock_at) }.cast();
        let address = LockAddress::new(LockAddress::CONTROL, self.layout.lock_at as u64);
        // SAFETY: `initialise` built the lock there, and it is mapped for 'a.
        unsafe { LockRef::new(at, address) }
    }

    /// Does `work` under the control lock, after rebuilding what a dead owner left.
    ///
    /// # Errors
    ///
    /// [`Error::Lock`].
    #[inline]
    pub(crate) fn locked<T>(
        &self,
        me: &Participant<'_>,
        patience: Patience,
        work: impl FnOnce() -> T,
    ) -> Result<T, Error> {
        let mut guard = self.lock().exclusive(me, patience).map_err(Error::Lock)?;
        if guard.acquired() == Acquired::FromDead {
            if !planted(Bug::IndexTrusted) {
                self.rebuild();
            }
            guard.mark_recovered();
        }
        Ok(work())
    }

    /// Rebuilds the indexes from the segment slots; under the control lock.
    #[cold]
    fn rebuild(&self) {
        self.slots_taken.clear_all();
        self.pages_taken.clear_all();
        self.header.slot_hint.store(0, Relaxed);
        self.header.page_hint.store(0, Relaxed);
        for slot in self.segments() {
            let free = slot.is_sane() && slot.word().state == State::Free;
            if free {
                continue;
            }
            self.slots_taken.fill(slot.index as usize, 1, true);
            if slot.handle().is_some_and(|handle| handle.is_main_region()) {
                if let Some((page, count)) = self.pages_of(&slot) {
                    self.pages_taken.fill(page as usize, count, true);
                }
            }
        }
    }

    /// Registers a tenant in a free participant slot; under the control lock. `None` if there is
    /// none.
    pub(crate) fn claim_participant(
        &self,
        process: (u32, u32),
        thread: ThreadProof,
    ) -> Option<(ParticipantId, &'a ParticipantSlot)> {
        let candidates = self.participants.iter().enumerate().skip(ELECTOR as usize + 1);
        for (index, slot) in candidates {
            let (generation, state) = process::unpack(slot.state.load(Acquire));
            // The last generation retires the slot: no id is ever used twice.
            if state != participant_state::FREE || generation == u32::MAX {
                continue;
            }
            slot.process.store(process::pack(process.1, process.0), Relaxed);
            slot.tid.store(thread.tid, Relaxed);
            slot.thread_start.store(thread.start_time, Relaxed);
            slot.waits_for.store(0, Relaxed);
            slot.held.iter().for_each(|held| held.store(0, Relaxed));
            slot.kinds.iter().for_each(|kind| kind.store(0, Relaxed));
            let word = process::pack(generation + 1, participant_state::LIVE);
            slot.state.store(word, Release);
            let id = ParticipantId { index: index as u16, generation: generation + 1 };
            return Some((id, slot));
        }
        None
    }

    /// Enters a claimed slot into the local half that it was claimed for; false if that is another
    /// namespace's.
    pub(crate) fn enter(
        &self,
        local: &ParticipantLocal,
        id: ParticipantId,
        slot: &ParticipantSlot,
    ) -> bool {
        let ours = local.belong_to(self.participants.as_ptr());
        if ours {
            // SAFETY: the slot was claimed for this local half, and the control segment stays
            // mapped while participants of the process are registered, also after `leave`; and
            // `participant` below makes sure of the last condition.
            unsafe { local.register(id, slot) };
        }
        ours
    }

    /// A participant of this namespace as `peers` see it: one that is not registered if `local` is
    /// another namespace's.
    pub(crate) fn participant<'p>(
        &self,
        peers: &'p dyn Peers,
        local: &'p ParticipantLocal,
    ) -> Participant<'p> {
        let ours = local.belong_to(self.participants.as_ptr());
        let local = if ours { local } else { ParticipantLocal::stranger() };
        // SAFETY: the local half is for this namespace as mapped here, and no other one, nor
        // anybody else, registers it; or it is never registered.
        unsafe { Participant::new(peers, local) }
    }

    /// Whether a process slot's tenant of that generation is gone, by its state or by proof.
    pub(crate) fn process_is_dead(&self, index: u32, generation: u32) -> bool {
        let Some(slot) = self.processes.get(index as usize) else { return true };
        if slot.get() != (generation, process::LIVE) {
            return true;
        }
        let proof = slot.proof.load();
        let dead = self.env.process_is_dead(index, &proof);
        // If the slot changed hands while the proof was read, its former tenant is gone anyhow.
        dead || slot.get() != (generation, process::LIVE)
    }

    /// Whether the elector of that generation is gone.
    fn elector_is_dead(&self, generation: u32) -> bool {
        let live = process::pack(generation, participant_state::LIVE);
        let state = &self.participants[ELECTOR as usize].state;
        if state.load(Acquire) != live {
            return true;
        }
        let proof = self.header.elector.load();
        let slot = self.header.elector_slot.load(Acquire) as u32;
        let dead = self.env.process_is_dead(slot, &proof);
        dead || state.load(Acquire) != live
    }

    /// Marks the process, or the thread, of a participant that is proven dead, so that nobody else
    /// has to ask. Idempotent; a proof is needed for each mark, since the participant may be dead
    /// for either reason.
    fn mark(&self, who: ParticipantId) {
        let Some(slot) = self.participants.get(who.index as usize) else { return };
        if who.index == ELECTOR {
            if self.elector_is_dead(who.generation) {
                Self::end(slot, who.generation);
            }
            return;
        }
        let (index, generation) = Self::process_of(slot);
        if !self.process_is_dead(index, generation) {
            self.note_ended(slot, who.generation);
        } else if let Some(process) = self.processes.get(index as usize) {
            process.mark_dead(generation);
        }
    }

    /// Whether that participant is marked as dead, or its slot has another tenant or none.
    fn is_marked(&self, who: ParticipantId) -> bool {
        let Some(slot) = self.participants.get(who.index as usize) else { return true };
        let (generation, state) = process::unpack(slot.state.load(Acquire));
        if generation != who.generation && !planted(Bug::GenerationIgnored)
            || matches!(state, participant_state::FREE | participant_state::ENDED)
        {
            return true;
        }
        if who.index == ELECTOR {
            return false;
        }
        let (process, tenancy) = Self::process_of(slot);
        let tenant = self.processes.get(process as usize).map(ProcessSlot::get);
        // Of this very tenant of the slot, or it is gone.
        tenant != Some((tenancy, process::LIVE))
    }

    /// Whether a participant is dead, by mark or by proof. Writes nothing: for who only looks.
    pub(crate) fn looks_dead(&self, who: ParticipantId) -> bool {
        let Some(slot) = self.participants.get(who.index as usize) else { return true };
        let (process, tenancy) = Self::process_of(slot);
        self.is_marked(who)
            || self.process_is_dead(process, tenancy)
            || self.has_ended(slot, who.generation)
    }

    /// Whether a participant's thread is proven gone while its process lives.
    fn has_ended(&self, slot: &ParticipantSlot, generation: u32) -> bool {
        let (process, tenancy) = Self::process_of(slot);
        let live = process::pack(generation, participant_state::LIVE);
        let tenant = self.processes.get(process as usize).map(ProcessSlot::get);
        slot.state.load(Acquire) == live
            && tenant == Some((tenancy, process::LIVE))
            && self.thread_is_dead(slot, process)
    }

    /// Marks a participant whose thread is proven gone while its process lives.
    pub(crate) fn note_ended(&self, slot: &ParticipantSlot, generation: u32) {
        if self.has_ended(slot, generation) {
            Self::end(slot, generation);
        }
    }

    /// LIVE to ENDED, for who has proof, or ends a thread of its own process.
    pub(crate) fn end(slot: &ParticipantSlot, generation: u32) {
        let live = process::pack(generation, participant_state::LIVE);
        let ended = process::pack(generation, participant_state::ENDED);
        // Fails if the slot changed hands since: then the proof was of another.
        let _ = slot.state.compare_exchange(live, ended, AcqRel, Relaxed);
    }

    /// What the slot knows of its tenant's process: (process slot, its generation).
    pub(crate) fn process_of(slot: &ParticipantSlot) -> (u32, u32) {
        let (generation, index) = process::unpack(slot.process.load(Acquire));
        (index, generation)
    }

    /// Whether the tenant's thread is proven gone while its process lives.
    fn thread_is_dead(&self, slot: &ParticipantSlot, process: u32) -> bool {
        let thread = ThreadProof {
            tid: slot.tid.load(Acquire),
            start_time: slot.thread_start.load(Acquire),
        };
        let Some(process) = self.processes.get(process as usize) else { return true };
        let proof: ProcessProof = process.proof.load();
        thread.tid != 0 && self.env.thread_is_dead(&proof, &thread)
    }
}

// SAFETY: who is called dead is gone by the environment's proof, or its slot has been swept after
// such a proof, and generations never come again; a bit is cleared under the control lock, which
// keeps the slot as it is, if its tenant is dead or there is none; the maximum is part of the
// layout, and slots beyond it do not exist.
unsafe impl Peers for Control<'_> {
    fn is_dead(&self, who: ParticipantId) -> bool {
        if !self.is_marked(who) {
            self.mark(who);
        }
        let dead = self.is_marked(who);
        if dead {
            // Also where somebody else made the mark, who may have died before it came to this.
            self.header.deaths.raise();
        }
        dead
    }

    fn is_known_dead(&self, who: ParticipantId) -> bool {
        self.is_marked(who)
    }

    fn deaths(&self) -> &DeathCount {
        &self.header.deaths
    }

    fn evict_reader(&self, me: &Participant<'_>, index: u16, word: &AtomicU64, bit: u64) -> bool {
        let tenant = || {
            let slot = self.participants.get(index as usize)?;
            let (generation, state) = process::unpack(slot.state.load(Acquire));
            (state != participant_state::FREE).then_some(ParticipantId { index, generation })
        };
        // A slot without a tenant is registered anew only under the control lock.
        let dead = || tenant().is_none_or(|who| self.is_dead(who));
        if !dead() {
            return false;
        }
        let evict = || {
            if dead() {
                word.fetch_and(!bit, core::sync::atomic::Ordering::SeqCst);
            }
        };
        let patience = Patience::Until(self.env.now().saturating_add(EVICTION));
        match self.locked(me, patience, evict) {
            Ok(()) => {}
            // Held by this very participant: nobody registers meanwhile.
            Err(Error::Lock(LockError::WouldDeadlock)) => evict(),
            Err(_) => return false,
        }
        word.load(core::sync::atomic::Ordering::SeqCst) & bit == 0
    }

    fn admits(&self, _: LockKind) -> bool {
        // Takes the control lock, and no other.
        false
    }

    fn max_participants(&self) -> u32 {
        self.layout.max_participants
    }

    fn env(&self) -> &dyn Environment {
        self.env
    }
}

/// `count` values of shared memory at `offset`.
///
/// # Safety
///
/// They must lie within a mapping that lives for `'a`, built and aligned for `T`, which consists
/// of atomics.
unsafe fn array<'a, T>(base: NonNull<u8>, offset: usize, count: usize) -> &'a [T] {
    // SAFETY: the caller promises that the offset lies within the mapping.
    let at = unsafe { base.add(offset) };
    // SAFETY: the caller promises built and aligned values, shared through atomics alone.
    unsafe { core::slice::from_raw_parts(at.cast::<T>().as_ptr(), count) }
}

/// Identity that a mapping of the control object must have had when it was initialised.
pub(crate) fn same_object(recorded: ObjectId, actual: ObjectId) -> bool {
    let unknown = ObjectId::default();
    recorded == actual || recorded == unknown || actual == unknown
}

/// What opening found in a mapped control object.
pub(crate) enum Found<'a> {
    /// A namespace.
    Valid(Control<'a>),
    /// Its creator died before it was published.
    Unpublished,
}

pub(crate) use setup::{initialise, recorded_id, validate};

/// The part of a mapping that is looked at.
pub(crate) fn fits(mapping: &Mapping, bytes: usize) -> bool {
    mapping.len >= bytes
}
