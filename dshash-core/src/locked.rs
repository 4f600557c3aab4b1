//! A partition held exclusively, and the operations on one entry.
//!
//! [`Locked`] is what every writer holds: the lock, and whether a change is under way. A change
//! begins by making the sequence word odd, so that readers without the lock distrust what they
//! see, and ends by making it even. In between, each step is recorded before it is taken:
//!
//! ```text
//! insert   count, place, op = INSERT | reference        delete   count, place, op = DELETE | ref.
//!          take the entry off the free list                      clear the reference  <- commits
//!          fill in header, key, value                            clear the tag, let passed fall
//!          raise passed, store the tag                           push on the free list
//!          store the reference          <- commits               count - 1
//!          count + 1                                             op = 0
//!          op = 0, or GUARD | reference: the caller's next step
//! ```
//!
//! The record is made of plain stores to a line that nobody else writes. If the holder dies, the
//! next one replays it (`recover`). If a step fails in a live process (a user's function panics),
//! dropping the `Locked` replays it likewise: one way to clean up, not two.

use dsm_core::lock::{Acquired, HeldMode, Patience, RawLock, SharedGuard, Token};
use dsm_core::participant::Participant;
use dsm_core::planted::{Bug, planted};
use dsm_core::sync::Ordering;

use crate::error::Error;
use crate::grow::prefetch;
use crate::hash;
use crate::layout::{
    LIVE, Line, OP_DELETE, OP_GUARD, OP_INSERT, OP_INSERT_UNFILLED, POISON, Record, UNIT, WINDOW,
    op_word, segment_mask, segment_pointer,
};
use crate::step::step;
use crate::store::{Allocator, Store};
use crate::view::{Core, Entry, Found};

/// Who calls, and with what patience.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'s> {
    pub(crate) participant: &'s Participant<'s>,
    pub(crate) heap: &'s dyn Allocator,
    pub(crate) patience: Patience,
}

impl<'s> Caller<'s> {
    /// Whoever `heap` belongs to, without hurry; refused if it cannot allocate in `store`.
    #[inline]
    pub(crate) fn new<S: Store>(store: &S, heap: &'s dyn Allocator) -> Result<Self, Error> {
        if heap.store_id() != store.id() {
            return Err(Error::ForeignHeap);
        }
        Ok(Self { participant: heap.participant(), heap, patience: Patience::Forever })
    }
}

/// A partition held alone. Small, for it is part of every guard and moves with it: what can be
/// computed from the partition's number is.
pub(crate) struct Locked<'s, S: Store> {
    pub(crate) core: &'s Core<S>,
    pub(crate) heap: &'s dyn Allocator,
    participant: &'s Participant<'s>,
    /// The lock's token; `None` while it is not held. All fields are whole words: narrow ones would
    /// make every move of a guard wait for the stores before it.
    token: Option<Token>,
    partition: usize,
    /// [`CHANGING`], [`FAILED`].
    state: usize,
}

/// The sequence word is odd.
const CHANGING: usize = 1;
/// A step failed: what the record says has yet to be replayed.
const FAILED: usize = 2;

/// What happens to the value of a new entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// It is complete when the entry is published.
    Complete,
    /// The caller completes it under the guard.
    Later,
}

impl<S: Store> Core<S> {
    /// A partition that is not held yet: [`Locked::acquire`] it. Two steps, so that what holds it
    /// is built where it stays.
    #[inline(always)]
    pub(crate) fn idle<'s>(&'s self, caller: Caller<'s>, partition: usize) -> Locked<'s, S> {
        let Caller { participant, heap, .. } = caller;
        Locked { core: self, heap, participant, token: None, partition, state: 0 }
    }

    /// Takes a partition for itself, after recovering it if its last owner died.
    pub(crate) fn exclusive<'s>(
        &'s self,
        caller: Caller<'s>,
        partition: usize,
    ) -> Result<Locked<'s, S>, Error> {
        let mut locked = self.idle(caller, partition);
        locked.acquire(caller.patience)?;
        Ok(locked)
    }

    #[cold]
    fn recover_first(&self, caller: Caller<'_>, partition: usize) -> Result<(), Error> {
        self.idle(caller, partition).acquire_unchecked(caller.patience)
    }

    /// Takes a partition beside other readers.
    #[inline(always)]
    pub(crate) fn shared<'s>(
        &'s self,
        caller: Caller<'s>,
        partition: usize,
    ) -> Result<SharedGuard<'s, S::Lock>, Error> {
        if self.held_by(caller.participant) == Some(HeldMode::Exclusive) {
            return Err(Error::WouldDeadlock);
        }
        loop {
            let lock = self.lock(partition).shared(caller.participant, caller.patience)?;
            let line = self.line(partition);
            match lock {
                Some(guard) if !line.seq.is_open() => return Ok(guard),
                guard => drop(guard),
            }
            self.recover_first(caller, partition)?;
        }
    }
}

impl<'s, S: Store> Locked<'s, S> {
    /// Takes the partition, after recovering it if its last owner died.
    #[inline(always)]
    pub(crate) fn acquire(&mut self, patience: Patience) -> Result<(), Error> {
        if self.core.held_by(self.participant).is_some() {
            return Err(Error::WouldDeadlock);
        }
        self.acquire_unchecked(patience)
    }

    /// As `acquire`, for a participant that is known to hold nothing of this table but other
    /// partitions shared: it waits only for owners that cannot wait for it.
    #[inline(always)]
    fn acquire_unchecked(&mut self, patience: Patience) -> Result<(), Error> {
        // The lock's release waits for the stores before it, so they had better hit the cache.
        prefetch(core::ptr::from_ref(self.record()).cast());
        let (at, address) = self.core.lock_at(self.partition);
        // SAFETY: initialised and mapped, at that address of the namespace that the participant
        // belongs to, as its heap does.
        let (token, acquired) =
            unsafe { S::Lock::acquire_exclusive(at, address, self.participant, patience) }?;
        self.token = Some(token);
        let unfinished = self.line().seq.is_open();
        if unfinished || acquired == Acquired::FromDead {
            self.recover(token, acquired)?;
        }
        Ok(())
    }

    #[cold]
    fn replay_late(&self) {
        let _ = self.replay();
    }

    #[cold]
    fn recover(&self, token: Token, acquired: Acquired) -> Result<(), Error> {
        self.replay()?;
        if acquired == Acquired::FromDead {
            let (at, _) = self.core.lock_at(self.partition());
            // SAFETY: held by this token.
            unsafe { S::Lock::mark_recovered(at, self.participant, token) };
        }
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn partition(&self) -> usize {
        self.partition
    }

    #[inline(always)]
    pub(crate) fn line(&self) -> &'s Line {
        self.core.line(self.partition())
    }

    #[inline(always)]
    pub(crate) fn record(&self) -> &'s Record {
        self.core.record(self.partition())
    }

    /// Sends readers without the lock away.
    #[inline(always)]
    pub(crate) fn begin(&mut self) {
        if self.state & CHANGING == 0 {
            self.state |= CHANGING;
            self.line().seq.open();
        }
    }

    /// The change is complete. Does nothing after a failure, which is for `drop` to clean up, nor
    /// in another process than the one that acquired.
    #[inline(always)]
    pub(crate) fn end(&mut self) {
        if self.state == CHANGING && self.is_owner() {
            self.state = 0;
            self.set_op(0);
            self.settle_sequence();
        }
    }

    #[inline]
    pub(crate) fn settle_sequence(&self) {
        self.line().seq.close();
    }

    #[inline]
    pub(crate) fn set_op(&self, word: u64) {
        step();
        self.record().op.store(word, Ordering::Relaxed);
        step();
    }

    /// Whether this process is the one that acquired.
    #[inline]
    fn is_owner(&self) -> bool {
        self.token.is_some_and(|token| token.owner() == self.participant.packed())
    }

    /// Takes the partition and finds the entry of a key.
    #[inline(always)]
    pub(crate) fn acquire_and_find(
        &mut self,
        patience: Patience,
        hash: u64,
        is_it: impl FnMut(Entry<'_>) -> bool,
    ) -> Result<Option<Found<'s>>, Error> {
        let (core, line) = (self.core, self.line());
        let ahead = core.home_ahead(line, hash);
        self.acquire(patience)?;
        let home = core.home_now(ahead, line, hash)?;
        Ok(core.find_from(home, line, hash, usize::MAX, is_it)?)
    }

    /// The value of an entry may change from now on, until `end`.
    #[inline(always)]
    pub(crate) fn guard(&mut self, found: &Found<'s>) {
        self.begin();
        self.set_op(op_word(OP_GUARD, found.reference));
    }

    /// Inserts an entry whose key is not in the table. The change is still open: go on with
    /// `guard` or `end`.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        fill: Fill,
        write: impl FnOnce(Entry<'s>),
    ) -> Result<Found<'s>, Error> {
        self.begin();
        let kept = hash::kept(hash);
        self.reserve_entry()?;
        let place = self.reserve_slot(kept)?;
        self.insert_at(place, hash, fill, write)
    }

    #[inline]
    fn insert_at(
        &mut self,
        place: Place<'s>,
        hash: u64,
        fill: Fill,
        write: impl FnOnce(Entry<'s>),
    ) -> Result<Found<'s>, Error> {
        let Place { bucket, pointer, slot, distance } = place;
        let (line, record) = (self.line(), self.record());
        let free = line.free.load(Ordering::Relaxed);
        let fresh = line.fresh.load(Ordering::Relaxed);
        let reference = if free != 0 { free } else { fresh as u32 };
        let entry = self.core.entry(reference)?;
        let count = line.count.load(Ordering::Relaxed);
        record.count.store(u64::from(count), Ordering::Relaxed);
        record.place.store(pointer | slot as u64, Ordering::Relaxed);
        let op = if fill == Fill::Complete { OP_INSERT } else { OP_INSERT_UNFILLED };
        self.set_op(op_word(op, reference));

        if free != 0 {
            line.free.store(entry.word().load(Ordering::Relaxed) as u32, Ordering::Relaxed);
        } else {
            // The next one, and one less.
            let units = (self.core.stride / UNIT) as u64;
            line.fresh.store(fresh.wrapping_add(units).wrapping_sub(1 << 32), Ordering::Relaxed);
        }
        step();
        entry.word().store(LIVE | u64::from(hash::kept(hash)), Ordering::Relaxed);
        write(entry);
        if distance != 0 {
            self.pass(hash::kept(hash), distance)?;
        }
        if planted(Bug::TagAfterReference) {
            bucket.refs[slot].store(reference, Ordering::Release);
        }
        bucket.set_tag(slot, hash::tag(hash));
        step();
        if planted(Bug::RecordClosedEarly) {
            self.set_op(0);
        }
        bucket.refs[slot].store(reference, Ordering::Release);
        step();
        line.count.store(count.wrapping_add(1), Ordering::Relaxed);
        Ok(Found { place: pointer | slot as u64, reference, entry })
    }

    /// Deletes an entry and, if few are left, gives some memory back. The change is still open.
    pub(crate) fn delete(&mut self, found: &Found<'s>) -> Result<(), Error> {
        let kept = self.delete_in_place(found)?;
        self.shrink(kept).inspect_err(|_| self.state |= FAILED)
    }

    /// Deletes an entry and leaves the index as it is, as a walk through it needs. Returns the
    /// kept half of the entry's hash.
    pub(crate) fn delete_in_place(&mut self, found: &Found<'s>) -> Result<u32, Error> {
        self.begin();
        self.state |= FAILED;
        let (line, record) = (self.line(), self.record());
        let pointer = found.place & !63;
        let (bucket, slot) = (self.core.bucket(pointer)?, (found.place & 63) as usize);
        let word = found.entry.word();
        let kept = word.load(Ordering::Relaxed) as u32;
        let count = line.count.load(Ordering::Relaxed);
        record.count.store(u64::from(count), Ordering::Relaxed);
        record.place.store(found.place, Ordering::Relaxed);
        self.set_op(op_word(OP_DELETE, found.reference));

        if planted(Bug::FreedBeforeUnlinked) {
            self.push_free(found.reference, found.entry);
        }
        bucket.refs[slot].store(0, Ordering::Release);
        step();
        bucket.set_tag(slot, 0);
        self.unpass(kept, pointer)?;
        if !planted(Bug::FreedBeforeUnlinked) {
            self.push_free(found.reference, found.entry);
        }
        line.count.store(count.wrapping_sub(1), Ordering::Relaxed);
        self.set_op(0);
        self.state &= !FAILED;
        Ok(kept)
    }

    /// Links an entry into the free list: first its header, then the list's head.
    pub(crate) fn push_free(&self, reference: u32, entry: Entry<'_>) {
        let next = self.line().free.load(Ordering::Relaxed);
        entry.word().store(u64::from(next), Ordering::Relaxed);
        step();
        self.line().free.store(reference, Ordering::Relaxed);
        step();
    }

    /// Marks, or clears, the poison of an entry.
    pub(crate) fn set_poison(&self, entry: Entry<'_>, poisoned: bool) {
        let word = entry.word().load(Ordering::Relaxed);
        let word = if poisoned { word | POISON } else { word & !POISON };
        entry.word().store(word, Ordering::Relaxed);
    }

    /// Notes that an entry went past the buckets before the one it got.
    #[cold]
    fn pass(&self, kept: u32, distance: usize) -> Result<(), Error> {
        let word = self.core.directory_entry(self.line(), kept)?.load(Ordering::Relaxed);
        let home = self.core.bucket(Core::<S>::home_of(word, kept))?;
        if distance >= WINDOW {
            home.set_chained();
            return Ok(());
        }
        for i in 0..distance {
            let bucket = self.core.bucket(in_window(word, kept, i))?;
            bucket.set_passed(bucket.passed().saturating_add(1));
        }
        Ok(())
    }

    /// Takes `pass` back for an entry that lay in the bucket at `pointer`. A count that once
    /// reached its maximum stays there: too many only costs a look at one bucket more.
    #[inline]
    fn unpass(&self, kept: u32, pointer: u64) -> Result<(), Error> {
        let word = self.core.directory_entry(self.line(), kept)?.load(Ordering::Relaxed);
        if Core::<S>::home_of(word, kept) == pointer {
            return Ok(());
        }
        self.unpass_far(word, kept, pointer)
    }

    #[cold]
    fn unpass_far(&self, word: u64, kept: u32, pointer: u64) -> Result<(), Error> {
        let window = WINDOW.min(segment_mask(word) + 1);
        let Some(distance) = (0..window).find(|i| in_window(word, kept, *i) == pointer) else {
            return Ok(());
        };
        for i in 0..distance {
            let bucket = self.core.bucket(in_window(word, kept, i))?;
            let passed = bucket.passed();
            if passed != u8::MAX {
                bucket.set_passed(passed.saturating_sub(1));
            }
        }
        Ok(())
    }
}

/// A free slot for a certain hash.
#[derive(Clone, Copy)]
pub(crate) struct Place<'t> {
    pub(crate) bucket: &'t crate::layout::Bucket,
    pub(crate) pointer: u64,
    pub(crate) slot: usize,
    /// Buckets from the home on; [`WINDOW`] for the overflow.
    pub(crate) distance: usize,
}

/// Pointer of the `i`th bucket from the home on.
#[inline]
pub(crate) fn in_window(word: u64, kept: u32, i: usize) -> u64 {
    let mask = segment_mask(word);
    segment_pointer(word) + 64 * ((hash::home(kept, mask) + i) & mask) as u64
}

impl<S: Store> Drop for Locked<'_, S> {
    #[inline(always)]
    fn drop(&mut self) {
        let Some(token) = self.token else { return };
        if self.state != 0 && self.is_owner() {
            // Only reached when a step failed or a user's function panicked. If the replay fails
            // too, the sequence word stays odd, and the next one to take this lock tries again.
            self.replay_late();
        }
        let (at, _) = self.core.lock_at(self.partition());
        // SAFETY: held by this token, and given back once.
        unsafe { S::Lock::release_exclusive(at, self.participant, token) };
    }
}
