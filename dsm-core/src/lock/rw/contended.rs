//! What the reader-writer lock does when somebody else is there: wait, probe, take over.
//!
//! All of it is out of line, and all that costs a look at the environment or at the peers
//! happens here. The rules are in the essay of the parent module.

use core::time::Duration;

use super::{
    CLAIMED, DIRTY, DRAINING, ENTERED, LOADS_PASS_STORES, Lines, OWNER, RwLock, SLEEPERS, SeqCst,
    dekker_fence, dekker_load, index_of, leave, leave_alone,
};
use crate::env::Environment;
use crate::handle::ParticipantId;
use crate::lock::{Acquired, LockError, Patience, Token};
use crate::participant::{Participant, Record};
use crate::planted::{Bug, planted};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, spin_loop};

/// Looks at the word before sleeping: about a microsecond, what a sleep and a wake cost.
const SPINS: u32 = if cfg!(any(loom, shuttle)) { 0 } else { 64 };
/// Looks at the word after having said that one sleeps: longer than a store takes to be seen.
const SETTLING: u32 = if LOADS_PASS_STORES { 32 } else { 1 };
/// The first sleep; each further one is twice as long.
const FIRST_SLEEP: Duration = Duration::from_millis(2);
/// The longest sleep: how long a lost wake or a death can go unnoticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(8);
/// A wait that is woken although the owner is the same has no reason to suspect it; it does so
/// every other time nevertheless, lest frequent wakes hide a death.
const TRUST: u32 = 2;

/// One acquisition's waiting: spin, then bounded sleeps, then doubt.
struct Waiter<'a> {
    participant: &'a Participant<'a>,
    patience: Patience,
    /// Spins left.
    spins: u32,
    sleeps: u32,
    /// The last sleep ended without a wake, or there is no time to sleep at all: before giving
    /// up or sleeping on, ask whether those waited for live.
    doubt: bool,
}

impl<'a> Waiter<'a> {
    /// For a wait behind an owner. A try does not spin: the owner has no reason to be quick.
    fn for_owner(participant: &'a Participant<'a>, patience: Patience) -> Self {
        let spins = if patience == Patience::Try { 0 } else { SPINS };
        Self { spins, ..Self::for_readers(participant, patience) }
    }

    /// For a wait behind reader bits. A try spins as well, because a bit may be that of a reader
    /// about to back out: of a reader and a writer that try at the same moment one gets in.
    fn for_readers(participant: &'a Participant<'a>, patience: Patience) -> Self {
        Self { participant, patience, spins: SPINS, sleeps: 0, doubt: false }
    }

    fn env(&self) -> &'a dyn Environment {
        self.participant.peers().env()
    }

    /// Waits a little for something that `wake` announces. `announce` makes sure of that, and
    /// returns the value of the wake word to sleep on; or `None` if there is no reason to sleep any
    /// more.
    ///
    /// Errors when the last doubt was cleared by the caller and the reason still holds, and when
    /// the one who waits was itself declared dead meanwhile: its bit or its id is not to be seen in
    /// a lock any more.
    fn pause(
        &mut self,
        lock: &RwLock,
        announce: impl FnOnce() -> Option<u32>,
    ) -> Result<(), LockError> {
        if self.spins > 0 {
            self.spins -= 1;
            spin_loop();
            return Ok(());
        }
        let doubted = core::mem::replace(&mut self.doubt, false);
        let step = (FIRST_SLEEP * (1 << self.sleeps.min(4))).min(LONGEST_SLEEP);
        let step = match self.patience {
            Patience::Forever => step,
            Patience::Try if doubted => return Err(LockError::WouldBlock),
            Patience::Try => Duration::ZERO,
            Patience::Until(deadline) => {
                let left = deadline.saturating_sub(self.env().now());
                if left.is_zero() && doubted {
                    return Err(LockError::TimedOut);
                }
                step.min(left)
            }
        };
        if step.is_zero() {
            self.doubt = true;
            return Ok(());
        }
        if let Some(seen) = announce() {
            self.env().wait(&lock.wake, seen, step);
            self.participant.confirm()?;
            self.sleeps = self.sleeps.wrapping_add(1);
            self.doubt = lock.wake.load(SeqCst) == seen || self.sleeps % TRUST == 0;
        }
        Ok(())
    }

    /// Waits for the owner word to be something else than `word`.
    fn behind_owner(&mut self, lock: &RwLock, word: u64) -> Result<(), LockError> {
        self.pause(lock, || {
            let seen = lock.wake.fetch_or(SLEEPERS, SeqCst) | SLEEPERS;
            dekker_fence();
            for look in 1..=SETTLING {
                if lock.owner.load(SeqCst) != word && !planted(Bug::SleepsUnlooked) {
                    return None;
                }
                if look < SETTLING {
                    spin_loop();
                }
            }
            Some(seen)
        })
    }

    /// Whether the owner in `word` is known to be dead, or there is reason to ask and it is proven
    /// dead (or never was: no participant has generation zero).
    ///
    /// Who died holding several locks is found dead once: the others who wait, and those who go on
    /// from a first lock to the next, need no sleep of their own to find out.
    fn finds_dead(&self, word: u64) -> bool {
        if self.spins > 0 {
            return false;
        }
        let peers = self.participant.peers();
        match ParticipantId::unpack(word & OWNER) {
            Some(owner) if self.doubt => peers.is_dead(owner),
            Some(owner) => {
                let dead = peers.is_known_dead(owner);
                if dead {
                    peers.deaths().raise();
                }
                dead
            }
            None => self.doubt,
        }
    }
}

/// Wakes all that sleep, whatever they sleep for. The word moves first, to one without `SLEEPERS`,
/// so that who is about to sleep does not, and who sleeps again says so again.
fn wake_all(lock: &RwLock, participant: &Participant<'_>) {
    let mut seen = lock.wake.load(SeqCst);
    while let Err(now) =
        lock.wake.compare_exchange(seen, (seen | SLEEPERS).wrapping_add(1), SeqCst, SeqCst)
    {
        seen = now;
    }
    participant.peers().env().wake_all(&lock.wake);
}

/// Wakes those who sleep until the owner goes, which has just happened.
#[cold]
fn wake_sleepers(lock: &RwLock, participant: &Participant<'_>) {
    if dekker_load(&lock.wake) & SLEEPERS != 0 && !planted(Bug::LostWake) {
        wake_all(lock, participant);
    }
}

/// The last reader out wakes the claimant; the others have no news for it.
fn wake_claimant(lines: Lines<'_>, participant: &Participant<'_>) {
    if !lines.any_reader(participant) {
        wake_all(lines.base, participant);
    }
}

/// Backs out as a reader.
fn back_out(lines: Lines<'_>, reader: (&AtomicU64, u64), participant: &Participant<'_>) {
    if leave(lines, reader) {
        wake_claimant(lines, participant);
    }
}

// The ends of releases, after which the record is cleared, also if a wake should panic. The record
// is moved into them: a release that ends without them has nothing to clean up, and needs no place
// in memory for it.

#[cold]
pub(super) fn wake_and_clear(lock: &RwLock, record: Record<'_>) {
    wake_sleepers(lock, record.participant());
}

#[cold]
pub(super) fn wake_claimant_and_clear(lines: Lines<'_>, record: Record<'_>) {
    wake_claimant(lines, record.participant());
}

/// The release of a lock that is held alone, for a participant that holds others too, or where the
/// word says more than its owner inside, or who has to look whether it is still the owner.
///
/// # Safety
///
/// As for `RawLock::release_exclusive`.
#[cold]
#[inline(never)]
pub(super) unsafe fn release_alone(lock: &RwLock, participant: &Participant<'_>, token: Token) {
    if !participant.owns(token) {
        return; // a fork child with its parent's guard, say
    }
    // SAFETY: the caller's promise.
    let record = unsafe { participant.release_alone(token.held()) };
    if lock.owner.load(Relaxed) != token.owner() | ENTERED {
        let_go(lock, participant);
    } else if leave_alone(lock) {
        wake_sleepers(lock, participant);
    }
    drop(record);
}

/// The same of a lock that is held beside others: it may be held more than once, too, or its bit
/// lie behind the first line.
///
/// # Safety
///
/// As for `RawLock::release_shared`.
#[cold]
#[inline(never)]
pub(super) unsafe fn release_beside(lines: Lines<'_>, participant: &Participant<'_>, token: Token) {
    if !participant.owns(token) {
        return;
    }
    // SAFETY: the caller's promise.
    let Some(record) = (unsafe { participant.release(token.held()) }) else { return };
    if let Some(reader) = lines.reader(index_of(token.owner())) {
        back_out(lines, reader, participant);
    }
    drop(record);
}

/// Gives the owner word up, keeping `DIRTY`, and wakes whoever waits for that.
#[cold]
fn let_go(lock: &RwLock, participant: &Participant<'_>) {
    let mut word = lock.owner.load(SeqCst);
    while word & OWNER == participant.packed() {
        match lock.owner.compare_exchange(word, word & DIRTY, SeqCst, SeqCst) {
            Ok(_) => return wake_sleepers(lock, participant),
            Err(changed) => word = changed,
        }
    }
}

/// Takes back an exclusive acquisition that was to happen at once and could not: the word, if it
/// was `entered`, then the record. The data was not touched.
#[cold]
#[inline(never)]
pub(super) fn back_out_alone(
    lock: &RwLock,
    participant: &Participant<'_>,
    record: Record<'_>,
    entered: bool,
) {
    if entered {
        let_go(lock, participant);
    }
    drop(record);
}

/// Takes back a shared acquisition that was to happen at once and could not: the bit, if the lock
/// has one for this participant, then the record.
#[cold]
#[inline(never)]
pub(super) fn back_out_beside(lines: Lines<'_>, participant: &Participant<'_>, record: Record<'_>) {
    if let Some(reader) = lines.reader(index_of(participant.packed())) {
        back_out(lines, reader, participant);
    }
    drop(record);
}

/// Acquires exclusively where somebody was there: readers if the owner word is ours (`entered`),
/// else an owner, living or dead, or a dead one's damage. Keeps the record if it succeeds, and
/// returns its index.
#[cold]
#[inline(never)]
pub(super) fn exclusive(
    lines: Lines<'_>,
    participant: &Participant<'_>,
    record: Record<'_>,
    patience: Patience,
    entered: bool,
) -> Result<(u8, Acquired), LockError> {
    let acquired = if entered {
        enter(lines, participant, patience)
    } else {
        claim(lines, participant, patience)
    }?;
    Ok((record.keep(), acquired))
}

/// Gets hold of the owner word, then enters.
fn claim(
    lines: Lines<'_>,
    participant: &Participant<'_>,
    patience: Patience,
) -> Result<Acquired, LockError> {
    let me = participant.packed();
    let lock = lines.base;
    let mut waiter = Waiter::for_owner(participant, patience);
    loop {
        let word = lock.owner.load(SeqCst);
        let mine = if word & OWNER == 0 {
            me | ENTERED | word & DIRTY
        } else if !waiter.finds_dead(word) {
            waiter.behind_owner(lock, word)?;
            continue;
        } else if word & ENTERED != 0 && !planted(Bug::EnteredTakenForClaimed) {
            me | ENTERED | DIRTY
        } else {
            me | ENTERED | word & DIRTY
        };
        if lock.owner.compare_exchange(word, mine, SeqCst, SeqCst).is_ok() {
            return enter(lines, participant, patience);
        }
    }
}

/// The owner word, held: let go of when dropped.
struct Word<'w> {
    lock: &'w RwLock,
    participant: &'w Participant<'w>,
}

impl Drop for Word<'_> {
    fn drop(&mut self) {
        let_go(self.lock, self.participant);
    }
}

/// The owner word says `{me, ENTERED}`: waits until no reader is inside. If it does not succeed the
/// word is let go of.
fn enter(
    lines: Lines<'_>,
    participant: &Participant<'_>,
    patience: Patience,
) -> Result<Acquired, LockError> {
    let lock = lines.base;
    let held = Word { lock, participant };
    loop {
        dekker_fence();
        if !lines.any_reader(participant) {
            core::mem::forget(held);
            let dirty = lock.owner.load(SeqCst) & DIRTY != 0;
            return Ok(if dirty { Acquired::FromDead } else { Acquired::Clean });
        }
        // Back to CLAIMED, where readers that hold other locks may pass: wake them.
        lock.owner.fetch_xor(ENTERED | CLAIMED, SeqCst);
        wake_sleepers(lock, participant);
        drain(lines, participant, patience)?;
        // Nobody else changes these bits, so that each flips as meant.
        let draining = lock.owner.load(SeqCst) & DRAINING;
        let word = lock.owner.fetch_xor(ENTERED | CLAIMED | draining, SeqCst);
        if planted(Bug::EntersUnlooked) {
            core::mem::forget(held);
            return Ok(if word & DIRTY != 0 { Acquired::FromDead } else { Acquired::Clean });
        }
    }
}

/// The owner word says `{me, CLAIMED}`: waits until the reader bits were seen clear.
fn drain(
    lines: Lines<'_>,
    participant: &Participant<'_>,
    patience: Patience,
) -> Result<(), LockError> {
    let lock = lines.base;
    let mut waiter = Waiter::for_readers(participant, patience);
    while lines.any_reader(participant) {
        if waiter.doubt {
            evict_dead(lines, participant);
            if !lines.any_reader(participant) {
                break;
            }
        }
        waiter.pause(lock, || {
            let seen = lock.wake.load(SeqCst);
            if lock.owner.load(SeqCst) & DRAINING == 0 {
                lock.owner.fetch_or(DRAINING, SeqCst);
            }
            dekker_fence();
            lines.any_reader(participant).then_some(seen)
        })?;
    }
    Ok(())
}

/// Clears the bits of readers that are proven dead, up to the first that lives: it has to leave
/// before anything else matters.
fn evict_dead(lines: Lines<'_>, participant: &Participant<'_>) {
    let words = lines.words(lines.words_for(participant));
    for (number, word) in words.enumerate() {
        let mut bits = word.load(SeqCst);
        while bits != 0 {
            // The last words are there to fill a line, and have the bits of nobody.
            let Ok(index) = u16::try_from(number * 64 + bits.trailing_zeros() as usize) else {
                return;
            };
            let bit = bits & bits.wrapping_neg();
            if !participant.peers().evict_reader(participant, index, word, bit) {
                return;
            }
            bits &= !bit;
        }
    }
}

/// Acquires shared where an owner, or damage, was seen after the reader's bit was set. Keeps the
/// record if it succeeds, and returns its index; `None` if the data needs recovery. The bit is then
/// cleared, before the record is.
#[cold]
#[inline(never)]
pub(super) fn shared(
    lines: Lines<'_>,
    reader: (&AtomicU64, u64),
    participant: &Participant<'_>,
    record: Record<'_>,
    patience: Patience,
) -> Result<Option<u8>, LockError> {
    let passed = pass(lines, reader, participant, &record, patience)?;
    Ok(passed.then(|| record.keep()))
}

/// Looks, backs out, waits and sets the bit again until a look finds nobody in the way. Leaves
/// the bit set only if it returns true; nothing that could panic is called while it is set.
fn pass(
    lines: Lines<'_>,
    reader: (&AtomicU64, u64),
    participant: &Participant<'_>,
    record: &Record<'_>,
    patience: Patience,
) -> Result<bool, LockError> {
    let lock = lines.base;
    let nested = record.is_beside_others();
    let mut waiter = Waiter::for_owner(participant, patience);
    loop {
        // The bit is set here.
        let word = lock.owner.load(SeqCst);
        if passes(word, nested) && word & DIRTY == 0 {
            return Ok(true);
        }
        back_out(lines, reader, participant);
        if !wait_out(lock, participant, nested, &mut waiter)? {
            return Ok(false);
        }
        reader.0.fetch_or(reader.1, SeqCst);
        dekker_fence();
    }
}

/// Waits, with no bit set, until a reader may try again; false if the data needs recovery.
fn wait_out(
    lock: &RwLock,
    participant: &Participant<'_>,
    nested: bool,
    waiter: &mut Waiter<'_>,
) -> Result<bool, LockError> {
    loop {
        let word = lock.owner.load(SeqCst);
        if passes(word, nested) {
            return Ok(word & DIRTY == 0);
        }
        if !waiter.finds_dead(word) {
            waiter.behind_owner(lock, word)?;
        } else if word & ENTERED != 0 && !planted(Bug::ReaderClearsEntered) {
            return Ok(false);
        } else if lock.owner.compare_exchange(word, word & DIRTY, SeqCst, SeqCst).is_ok() {
            wake_sleepers(lock, participant);
        }
    }
}

/// Whether a reader need not wait for the word's owner: there is none, or a mere claimant that
/// a reader with other locks passes.
const fn passes(word: u64, nested: bool) -> bool {
    word & OWNER == 0 || nested && word & ENTERED == 0
}
