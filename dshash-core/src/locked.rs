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
//!
//! # At once, or slowly
//!
//! Nearly every operation finds the partition free, what it needs mapped, the entry in its home
//! bucket and room for a new one. That path is inlined, takes one read-modify-write, the lock's,
//! calls nothing, and has no reason to give when it does not come through: it then lets go of
//! whatever it holds, and the same is done *slowly*, out of line: with waits, recovery, mapping,
//! growth and all errors. Nothing of the first attempt is relied upon, so that
//! there is one place where each of these is dealt with.
//!
//! What makes the inlined path quick is that all it knows stays in registers. Its types are
//! therefore made of whole words and passed by value; whoever calls something out of line while a
//! `Locked` is there hands it over by value, and gets it back through a reference to a place of its
//! own.

use core::convert::Infallible;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ops::Deref;

use dsm_core::lock::{Acquired, HeldMode, LockError, Patience, RawLock, SharedGuard, Token};
use dsm_core::planted::{Bug, planted};
use dsm_core::sync::Ordering;

use crate::error::Error;
use crate::follow::{Anywhere, AtHand};
use crate::grow::prefetch;
use crate::hash;
use crate::layout::{LIVE, OP_DELETE, OP_GUARD, OP_INSERT, OP_INSERT_UNFILLED, op_word};
use crate::partition::{Caller, NewEntry, Partition, Place, Wait};
use crate::step::step;
use crate::store::{Allocator, Store};
use crate::view::{Core, Entry, Found};

/// A partition held alone. All fields are whole words: narrow ones would make every move of a guard
/// wait for the stores before it.
pub(crate) struct Locked<'s, S: Store> {
    partition: Partition<'s, S>,
    token: Token,
    /// [`CHANGING`], [`FAILED`].
    state: usize,
}

impl<'s, S: Store> Deref for Locked<'s, S> {
    type Target = Partition<'s, S>;

    #[inline(always)]
    fn deref(&self) -> &Partition<'s, S> {
        &self.partition
    }
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

/// What the slow form of an operation gives out: it lies in a place of the caller's, so that what
/// the inlined form returns need not be in memory.
struct Given<'o, T>(&'o mut MaybeUninit<T>);

impl<'o, T> Given<'o, T> {
    fn new(place: &'o mut MaybeUninit<T>, value: T) -> Self {
        place.write(value);
        Self(place)
    }

    #[inline(always)]
    fn take(self) -> T {
        // SAFETY: `new`, which alone makes these, has written a value, and it is taken once.
        unsafe { self.0.assume_init_read() }
    }
}

/// A partition taken for a key, and the key's entry if there is one.
pub(crate) type Taken<'s, S> = (Locked<'s, S>, Option<Found<'s>>);

impl<S: Store> Core<S> {
    /// Takes a partition for itself, after recovering it if its last owner died.
    pub(crate) fn exclusive<'s>(
        &'s self,
        caller: Caller<'s>,
        partition: usize,
    ) -> Result<Locked<'s, S>, Error> {
        if self.held_by(caller.participant).is_some() {
            return Err(Error::WouldDeadlock);
        }
        self.partition(caller, partition).acquire_unchecked(caller.wait.patience())
    }

    /// Takes the partition of a key and finds its entry. If that is poisoned, and `refuse_poison`,
    /// the outcome is [`Error::Poisoned`].
    #[inline(always)]
    pub(crate) fn take<'s>(
        &'s self,
        caller: Caller<'s>,
        hash: u64,
        refuse_poison: bool,
        mut is_it: impl FnMut(Entry<'_>) -> bool,
    ) -> Result<Taken<'s, S>, Error> {
        if let Some(taken) = self.take_at_once(caller, hash, refuse_poison, &mut is_it) {
            return Ok(taken);
        }
        let mut place = MaybeUninit::uninit();
        let Caller { heap, wait, .. } = caller;
        self.take_slowly(heap, wait, hash, refuse_poison, &mut is_it, &mut place).map(Given::take)
    }

    /// As [`take`](Self::take), if nothing is in the way: otherwise holds nothing and knows no
    /// reason.
    #[inline(always)]
    fn take_at_once<'s>(
        &'s self,
        caller: Caller<'s>,
        hash: u64,
        refuse_poison: bool,
        is_it: &mut impl FnMut(Entry<'_>) -> bool,
    ) -> Option<Taken<'s, S>> {
        let partition = self.partition(caller, self.partition_of(hash));
        let line = partition.line();
        let home = self.home_ahead(line, hash).ok()?;
        // The lock's release waits for the stores before it, so they had better hit the cache.
        prefetch(core::ptr::from_ref(partition.record()).cast());
        let address = self.lock_address(partition.number);
        // SAFETY: initialised and mapped, at that address of the namespace that the participant
        // belongs to, as its heap does.
        let token =
            unsafe { S::Lock::exclusive_at_once(partition.lock, address, caller.participant) }?;
        let locked = Locked { partition, token, state: 0 };
        if !line.seq.is_open() && home.is_current(line) {
            match self.find_from::<AtHand>(home, line, hash, usize::MAX, is_it) {
                Ok(Some(found)) if refuse_poison && found.entry.is_poisoned() => {}
                Ok(found) => return Some((locked, found)),
                Err(_) => {}
            }
        }
        locked.give_up();
        None
    }

    /// As [`take`](Self::take), whatever it takes.
    #[cold]
    #[inline(never)]
    fn take_slowly<'o, 's>(
        &'s self,
        heap: &'s dyn Allocator,
        wait: Wait,
        hash: u64,
        refuse_poison: bool,
        is_it: &mut impl FnMut(Entry<'_>) -> bool,
        place: &'o mut MaybeUninit<Taken<'s, S>>,
    ) -> Result<Given<'o, Taken<'s, S>>, Error> {
        let caller = Caller { participant: heap.participant(), heap, wait };
        let locked = self.exclusive(caller, self.partition_of(hash))?;
        let line = locked.line();
        let home = self.home::<Anywhere>(line, hash)?;
        let found = self.find_from::<Anywhere>(home, line, hash, usize::MAX, is_it)?;
        if refuse_poison && found.is_some_and(|found| found.entry.is_poisoned()) {
            return Err(Error::Poisoned);
        }
        Ok(Given::new(place, (locked, found)))
    }

    #[cold]
    fn recover_first(&self, caller: Caller<'_>, partition: usize) -> Result<(), Error> {
        self.partition(caller, partition).acquire_unchecked(caller.wait.patience()).map(drop)
    }

    /// Takes a partition beside other readers.
    pub(crate) fn shared<'s>(
        &'s self,
        caller: Caller<'s>,
        partition: usize,
    ) -> Result<SharedGuard<'s, S::Lock>, Error> {
        if self.held_by(caller.participant) == Some(HeldMode::Exclusive) {
            return Err(Error::WouldDeadlock);
        }
        loop {
            let lock = self.lock(partition).shared(caller.participant, caller.wait.patience())?;
            let line = self.line(partition);
            match lock {
                Some(guard) if !line.seq.is_open() => return Ok(guard),
                guard => drop(guard),
            }
            self.recover_first(caller, partition)?;
        }
    }
}

impl<'s, S: Store> Partition<'s, S> {
    /// Takes the partition's lock; what the last owner left is for the caller to see to.
    #[inline(always)]
    fn lock(self, patience: Patience) -> Result<(Locked<'s, S>, Acquired), LockError> {
        let address = self.core.lock_address(self.number);
        // SAFETY: initialised and mapped, at that address of the namespace that the participant
        // belongs to, as its heap does.
        let (token, acquired) =
            unsafe { S::Lock::acquire_exclusive(self.lock, address, self.participant, patience) }?;
        Ok((Locked { partition: self, token, state: 0 }, acquired))
    }

    /// Takes the partition, after recovering it if its last owner died, for a participant that is
    /// known to hold nothing of this table but other partitions shared: it waits only for owners
    /// that cannot wait for it.
    fn acquire_unchecked(self, patience: Patience) -> Result<Locked<'s, S>, Error> {
        let (locked, acquired) = self.lock(patience)?;
        let unfinished = self.line().seq.is_open();
        if unfinished || acquired == Acquired::FromDead {
            self.replay()?;
        }
        if acquired == Acquired::FromDead {
            // SAFETY: held by this token.
            unsafe { S::Lock::mark_recovered(self.lock, self.participant, locked.token) };
        }
        Ok(locked)
    }

    /// After a failure, or a panic of a user's function: replays what was begun. If that fails too,
    /// the sequence word stays odd, and the next one to take the lock tries again.
    #[cold]
    #[inline(never)]
    fn replay_late(self, token: Token) {
        if self.participant.owns(token) {
            let _ = self.replay();
        }
    }

    /// [`Locked::set_poison`].
    #[cold]
    #[inline(never)]
    fn set_poison_if_held(self, token: Token, entry: Entry<'_>, poisoned: bool) {
        if self.participant.owns(token) {
            self.set_poison(entry, poisoned);
        }
    }

    /// [`Locked::confirm`] for who has to look.
    #[cold]
    #[inline(never)]
    fn confirm_late(self, token: Token) -> Result<(), LockError> {
        self.participant.confirm()?;
        if self.participant.owns(token) { Ok(()) } else { Err(LockError::NotRegistered) }
    }

    /// [`Locked::end`] for who has to look first whether it is still the owner. Returns the state.
    #[cold]
    #[inline(never)]
    fn end_late(self, token: Token) -> usize {
        if !self.participant.owns(token) {
            return CHANGING;
        }
        self.close();
        0
    }

    /// A change is complete.
    #[inline(always)]
    fn close(self) {
        self.set_op(0);
        self.settle_sequence();
    }

    #[cold]
    #[inline(never)]
    fn let_go(self, token: Token, state: usize) {
        drop(Locked { partition: self, token, state });
    }
}

impl<'s, S: Store> Locked<'s, S> {
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
        if self.state == CHANGING {
            self.state = if self.participant.owns_as_of_now(self.token) {
                self.close();
                0
            } else {
                self.partition.end_late(self.token)
            };
        }
    }

    /// Makes sure that the lock is still held, for who comes back to it after code of the user:
    /// that may have forked, or have been too long about it for somebody who was declared dead.
    #[inline]
    pub(crate) fn confirm(&self) -> Result<(), LockError> {
        let current = self.participant.owns_as_of_now(self.token);
        if current { Ok(()) } else { self.partition.confirm_late(self.token) }
    }

    /// Marks, or clears, the poison of an entry, if the lock is still held.
    #[inline(always)]
    pub(crate) fn set_poison(&self, entry: Entry<'s>, poisoned: bool) {
        self.partition.set_poison_if_held(self.token, entry, poisoned);
    }

    /// The value of an entry may change from now on, until `end`.
    #[inline(always)]
    pub(crate) fn guard(&mut self, found: &Found<'s>) {
        self.begin();
        self.set_op(op_word(OP_GUARD, found.reference));
    }

    /// Inserts an entry whose key is not in the table. The change is still open: go on with
    /// `guard` or `end`.
    #[inline(always)]
    pub(crate) fn insert(
        mut self,
        hash: u64,
        fill: Fill,
        write: impl FnOnce(Entry<'s>),
    ) -> Result<(Self, Found<'s>), Error> {
        self.begin();
        if let Some((place, new)) = self.free_place(hash::kept(hash)) {
            // In the home bucket: there is nothing to pass.
            let Ok(found) = self.insert_at::<Infallible>(place, new, hash, fill, write, |_| Ok(()));
            return Ok((self, found));
        }
        // Moved there and back again, so that what is not moved need not be in memory.
        let mut inserted = MaybeUninit::uninit();
        self.insert_slowly(hash, fill, write, &mut inserted).map(Given::take)
    }

    /// As [`insert`](Self::insert), where room must be looked for or made.
    #[cold]
    #[inline(never)]
    fn insert_slowly<'o>(
        mut self,
        hash: u64,
        fill: Fill,
        write: impl FnOnce(Entry<'s>),
        inserted: &'o mut MaybeUninit<(Self, Found<'s>)>,
    ) -> Result<Given<'o, (Self, Found<'s>)>, Error> {
        self.reserve_entry()?;
        let place = self.reserve_slot(hash::kept(hash))?;
        let new = self.next_entry::<Anywhere>()?;
        let (kept, distance) = (hash::kept(hash), place.distance);
        let found = self.insert_at(place, new, hash, fill, write, |partition| {
            if distance == 0 { Ok(()) } else { partition.pass(kept, distance) }
        })?;
        Ok(Given::new(inserted, (self, found)))
    }

    /// `pass` notes which buckets the entry went past: the one thing that can fail.
    #[inline(always)]
    fn insert_at<E>(
        &mut self,
        place: Place<'s>,
        new: NewEntry<'s>,
        hash: u64,
        fill: Fill,
        write: impl FnOnce(Entry<'s>),
        pass: impl FnOnce(&Partition<'s, S>) -> Result<(), E>,
    ) -> Result<Found<'s>, E> {
        let Place { bucket, pointer, slot, .. } = place;
        let NewEntry { reference, entry, is_free, fresh } = new;
        let (line, record) = (self.line(), self.record());
        let place = pointer | slot as u64;
        let count = line.count.load(Ordering::Relaxed);
        record.count.store(u64::from(count), Ordering::Relaxed);
        record.place.store(place, Ordering::Relaxed);
        let op = if fill == Fill::Complete { OP_INSERT } else { OP_INSERT_UNFILLED };
        self.set_op(op_word(op, reference));

        if is_free {
            line.free.store(entry.word().load(Ordering::Relaxed) as u32, Ordering::Relaxed);
        } else {
            fresh.without_first(self.core.stride()).store(&line.fresh);
        }
        step();
        entry.word().store(LIVE | u64::from(hash::kept(hash)), Ordering::Relaxed);
        write(entry);
        pass(&self.partition)?;
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
        Ok(Found { place, bucket, reference, entry })
    }

    /// Deletes an entry, gives some memory back if few are left, and unlocks.
    #[inline(always)]
    pub(crate) fn delete(mut self, found: &Found<'s>) -> Result<(), Error> {
        if !self.lies_at_home(found) {
            return self.delete_slowly(found);
        }
        let Ok(kept) = self.delete_at::<Infallible>(found, |_, _| Ok(()));
        if self.may_shrink() {
            return self.shrink_slowly(kept);
        }
        self.end();
        self.finish();
        Ok(())
    }

    /// As [`delete`](Self::delete), of an entry that lies wherever.
    #[cold]
    #[inline(never)]
    fn delete_slowly(mut self, found: &Found<'s>) -> Result<(), Error> {
        let kept = self.delete_in_place(found)?;
        self.shrink_slowly(kept)
    }

    /// The rest of a deletion that may have left little.
    #[cold]
    #[inline(never)]
    fn shrink_slowly(mut self, kept: u32) -> Result<(), Error> {
        if self.may_shrink() {
            self.shrink(kept)?;
        }
        self.end();
        Ok(())
    }

    /// Deletes an entry and leaves the index as it is, as a walk through it needs. Returns the
    /// kept half of the entry's hash. The change is still open.
    pub(crate) fn delete_in_place(&mut self, found: &Found<'s>) -> Result<u32, Error> {
        self.state |= FAILED;
        let unpass = |partition: &Partition<'s, S>, kept| partition.unpass(kept, found.place & !63);
        let kept = self.delete_at(found, unpass)?;
        self.state &= !FAILED;
        Ok(kept)
    }

    /// `unpass` takes back which buckets the entry went past: the one thing that can fail.
    #[inline(always)]
    fn delete_at<E>(
        &mut self,
        found: &Found<'s>,
        unpass: impl FnOnce(&Partition<'s, S>, u32) -> Result<(), E>,
    ) -> Result<u32, E> {
        self.begin();
        let (line, record) = (self.line(), self.record());
        let (bucket, slot) = (found.bucket, (found.place & 63) as usize);
        let kept = found.entry.word().load(Ordering::Relaxed) as u32;
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
        unpass(&self.partition, kept)?;
        if !planted(Bug::FreedBeforeUnlinked) {
            self.push_free(found.reference, found.entry);
        }
        line.count.store(count.wrapping_sub(1), Ordering::Relaxed);
        self.set_op(0);
        Ok(kept)
    }
}

impl<S: Store> Locked<'_, S> {
    /// Gives the lock back: dropping for where it is likely, and inlined.
    #[inline(always)]
    pub(crate) fn finish(self) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: it is not dropped.
        unsafe { this.release() };
    }

    /// Gives the lock back: dropping for where it is unlikely, and out of line.
    #[inline(always)]
    pub(crate) fn give_up(self) {
        let this = ManuallyDrop::new(self);
        this.partition.let_go(this.token, this.state);
    }

    /// What dropping does.
    ///
    /// # Safety
    ///
    /// Once, and nothing else is done with this afterwards, dropping included.
    #[inline(always)]
    pub(crate) unsafe fn release(&mut self) {
        if self.state != 0 {
            self.partition.replay_late(self.token);
        }
        // SAFETY: held by this token, and given back once.
        unsafe { S::Lock::release_exclusive(self.lock, self.participant, self.token) };
    }
}

impl<S: Store> Drop for Locked<'_, S> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: this is the end.
        unsafe { self.release() };
    }
}
