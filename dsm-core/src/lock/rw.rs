//! The reader-writer lock that survives the death of whoever holds it.
//!
//! # Layout
//!
//! ```text
//! byte 0   owner       u64   0..48 ParticipantId::pack(), 48.. flags; 0: nobody, data clean
//!      8   wake        u32   what waiters sleep on; bit 0: somebody sleeps until the owner goes; the
//!                            rest means nothing, only that it moves
//!      12  shape       u32   "RW" above the number of reader words behind this line; constant
//!      16  readers     6 u64 bit p: participant p holds the lock shared, or is about to look
//!      64  ..          8 u64 a line, for participants 384 and above
//! ```
//!
//! Flags: `CLAIMED` (the owner waits for readers to leave, the data is untouched by it) or
//! `ENTERED` (the owner may have changed the data); `DRAINING` (the claimant sleeps until the
//! readers go); `DIRTY` (a dead owner had entered, and nobody has said `mark_recovered` since).
//!
//! # Protocol
//!
//! The *owner word* and the *reader bits* are the truth; there is nothing else to rebuild. An owner
//! word that is not 0 is changed by nobody but its owner, until that is dead; so whoever gives a
//! clean one back just stores 0. Every other change to either is an atomic read-modify-write.
//! Readers and writers exclude each other as in Dekker's algorithm, which is why those accesses are
//! sequentially consistent:
//!
//! - a reader sets its bit, *then* looks at the owner word. If an owner is there it takes the bit
//!   back and waits;
//! - a writer sets the owner word to `ENTERED`, *then* looks at the bits. If a reader is there it
//!   steps back to `CLAIMED`, waits until the bits are clear, and enters (and looks) again.
//!
//! A writer therefore changes the data only after a moment at which the word said `ENTERED` and
//! no bit was set; every reader whose bit came later sees `ENTERED`. When nobody else is there a
//! writer's cycle costs one read-modify-write, and a reader's two.
//!
//! The forms *at once* are the first steps of these two, for a participant that holds no other
//! lock: who finds somebody there takes its mark back and leaves everything else to the full forms.
//! A bit or an owner word that comes and goes like this is what others see of a reader that backs
//! out, and of an owner that had nothing to do.
//!
//! A reader that holds another lock does not wait for a mere claimant: it may be the one that
//! some other claimant waits for, and the four of them would wait in a circle. It passes while
//! the word says `CLAIMED`; the claimant's second look at the bits finds it. (Where the data is
//! `DIRTY` as well, it cannot pass, and is told so instead of waiting.) So nobody ever waits for
//! a claimant while holding a lock shared, and to wait for an `ENTERED` owner is to wait for
//! somebody at work.
//!
//! # Death
//!
//! The participant's `held[]` names the lock before its word is touched and until after it was
//! let go, so whoever sweeps the dead finds every bit (`clear_reader`). What each point of death
//! leaves, and who repairs it:
//!
//! | died | left | repaired by |
//! |---|---|---|
//! | reader, before or after its bit was set, holding or backing out | a bit | a draining claimant, through [`Peers::evict_reader`]; or the sweep |
//! | claimant | `{dead, CLAIMED}` | any waiter: a reader clears the word, a writer takes it over. Data clean |
//! | owner, from its compare-and-swap to its last store | `{dead, ENTERED}` | the next writer: `{me, ENTERED, DIRTY}`, `FromDead`. Readers get `NeedsRecovery` |
//! | recoverer | the same with `DIRTY` | the same |
//! | anybody, between a release and its wake | sleepers | their own timeouts |
//!
//! A take-over is one compare-and-swap from the exact word, in which id and generation are never
//! used again: of two recoverers one wins, and a stale one cannot hit a later owner. Every sleep
//! is bounded by 8 ms, and who wakes up to the same owner asks whether it lives. Before the first
//! sleep it is only looked up whether somebody has found the owner dead already; whoever sweeps
//! the dead wakes those who sleep at the locks that they held, which makes them ask at once.
//!
//! # Sleep
//!
//! Who is going to sleep until the owner goes sets bit 0 of `wake`, *then* looks at the owner word
//! once more; who gives the word back stores it, *then* looks at bit 0, which only those who wake
//! all sleepers clear. That is Dekker's pattern again, and would need a fence that costs the owner
//! as much as a read-modify-write where a processor lets loads pass earlier stores: on x86. There
//! the one in no hurry pays instead. A store waits in its processor's buffer for some hundred
//! cycles at most before everybody sees it, so the sleeper goes on looking for longer than that. It
//! does not rely on this for more than its promptness: like a wake that nobody is left alive to
//! make, one that were missed would be made up for by the end of the sleep.
//!
//! # What waits cost
//!
//! Waiters spin for about a microsecond, then sleep. There is no queue: whoever comes first
//! after a release gets the lock. A claimant keeps new readers out, so writers do not starve;
//! a stream of writers can starve readers.
//!
//! [`Peers::evict_reader`]: crate::participant::Peers::evict_reader

mod contended;
mod lines;

use core::mem::size_of;
use core::ptr::NonNull;

use lines::{Lines, extension_of, extension_words, leave, leave_alone, shape};

use super::{Acquired, HeldMode, LockError, Patience, RawLock, SharedOutcome, Token};
use crate::env::Environment;
use crate::handle::{LockAddress, ParticipantId};
use crate::participant::Participant;
use crate::planted::{Bug, planted};
use crate::sync::{
    AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
    dekker_fence, dekker_load,
};

/// Reader words in the first line. One in models, to keep them small.
const BASE_WORDS: usize = if cfg!(loom) { 1 } else { 6 };
/// Bits of the shape that are the number of reader words behind the first line.
const SHAPE_WORDS: u32 = 0xffff;
/// The other ones. They tell a lock from memory that was one once and has another use by now: a
/// participant that was killed between letting go of a lock and taking its record back leaves a
/// record that outlives the lock.
const SHAPE_MARK: u32 = 0x5752_0000;
/// Reader words in an extension line.
const LINE_WORDS: usize = 8;

const OWNER: u64 = (1 << 48) - 1;
const CLAIMED: u64 = 1 << 48;
const ENTERED: u64 = 1 << 49;
const DRAINING: u64 = 1 << 50;
const DIRTY: u64 = 1 << 51;

/// In `wake`: somebody sleeps until the owner goes.
const SLEEPERS: u32 = 1;

/// Whether a load may pass an earlier store to another word unless a fence costs as much as a
/// read-modify-write. Elsewhere sequentially consistent stores and loads do not, and cost little.
const LOADS_PASS_STORES: bool =
    cfg!(all(any(target_arch = "x86", target_arch = "x86_64"), not(any(loom, shuttle))));

/// The recoverable reader-writer lock; see the module's essay. Used through
/// [`LockRef`](super::LockRef).
#[doc(alias = "LWLock")]
#[repr(C, align(64))]
pub struct RwLock {
    owner: AtomicU64,
    wake: AtomicU32,
    shape: AtomicU32,
    readers: [AtomicU64; BASE_WORDS],
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<RwLock>() == 64);
    assert!(core::mem::offset_of!(RwLock, readers) == 16);
};

/// What a lock looks like at one moment, for tools and tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RwLockState {
    /// Who has the owner word.
    pub owner: Option<ParticipantId>,
    /// Whether that owner is inside; if not it waits for readers to leave.
    pub entered: bool,
    /// Whether a dead owner's damage is still to be repaired.
    pub dirty: bool,
    /// Whether somebody sleeps until the owner goes, or was about to since the last wake.
    pub waiters: bool,
    /// How many participants hold it shared (or are just looking, or died doing so).
    pub readers: u32,
}

/// Index of the participant with this packed id.
#[inline]
const fn index_of(packed: u64) -> u16 {
    packed as u16
}

impl RwLock {
    /// What the lock looks like now, for tools.
    ///
    /// # Safety
    ///
    /// `at` must be an initialised lock.
    #[must_use]
    pub unsafe fn state(at: NonNull<Self>) -> RwLockState {
        // SAFETY: the caller promises an initialised lock; it is used within this call only.
        let lines = unsafe { Lines::new(at) };
        let word = lines.base.owner.load(SeqCst);
        RwLockState {
            owner: ParticipantId::unpack(word & OWNER),
            entered: word & ENTERED != 0,
            dirty: word & DIRTY != 0,
            waiters: lines.base.wake.load(SeqCst) & SLEEPERS != 0,
            readers: lines
                .words(lines.extension_words())
                .map(|w| w.load(SeqCst).count_ones())
                .sum(),
        }
    }

    /// Whether this looks like a lock for that many participants. Every other function trusts the
    /// stored length, so what others may have damaged, or put to another use, is asked first.
    ///
    /// # Safety
    ///
    /// `at` must be valid for reads of the first line.
    #[must_use]
    pub unsafe fn has_length_for(at: NonNull<Self>, max_participants: u32) -> bool {
        // SAFETY: the caller promises the first line, and any bytes are atomics.
        let base = unsafe { at.as_ref() };
        base.shape.load(SeqCst) == shape(max_participants)
    }

    /// Wakes all that sleep at the lock, without a change to it: a wake that nothing has happened
    /// for makes them look whether those they wait for live.
    ///
    /// # Safety
    ///
    /// `at` must be valid for reads of the first line.
    pub unsafe fn wake_sleepers(at: NonNull<Self>, env: &dyn Environment) {
        // SAFETY: the caller promises the first line, and any bytes are atomics.
        let base = unsafe { at.as_ref() };
        env.wake_all(&base.wake);
    }
}

// SAFETY: the module's essay: a writer proceeds only after a moment when the word said ENTERED
// with its id and no reader bit was set, and a reader only after a moment when its bit was set
// and the word did not say ENTERED; releases are stores or read-modify-writes with release
// semantics that the next acquisition's acquire loads read from.
unsafe impl RawLock for RwLock {
    const IDENTITY: u64 = u64::from_le_bytes(*b"rwlock\0\x01");

    fn size_for(max_participants: u32) -> usize {
        size_of::<Self>() + extension_words(max_participants) * size_of::<AtomicU64>()
    }

    unsafe fn init(at: NonNull<Self>, max_participants: u32) {
        let words = extension_words(max_participants);
        let lock = Self {
            owner: AtomicU64::new(0),
            wake: AtomicU32::new(0),
            shape: AtomicU32::new(shape(max_participants)),
            readers: core::array::from_fn(|_| AtomicU64::new(0)),
        };
        // SAFETY: the caller promises room for the lock, aligned and unused.
        unsafe { at.write(lock) };
        for word in 0..words {
            let place = extension_of(at).wrapping_add(word);
            // SAFETY: the caller promises `size_for` bytes, which has this word behind the line,
            // aligned since the line's size is a multiple of its alignment.
            unsafe { place.write(AtomicU64::new(0)) };
        }
    }

    #[inline(always)]
    unsafe fn acquire_exclusive(
        at: NonNull<Self>,
        address: LockAddress,
        participant: &Participant<'_>,
        patience: Patience,
    ) -> Result<(Token, Acquired), LockError> {
        // SAFETY: kept below if the lock is acquired, by `contended::exclusive` else.
        let record = unsafe { participant.hold::<Self>(address, HeldMode::Exclusive) }?;
        let me = participant.packed();
        // SAFETY: the caller promises an initialised lock that stays mapped.
        let lines = unsafe { Lines::new(at) };
        let entered = lines.enter_free(me);
        if entered && !lines.any_reader(participant) {
            return Ok((Token::new(record.keep(), me), Acquired::Clean));
        }
        match contended::exclusive(lines, participant, record, patience, entered) {
            Ok((held, acquired)) => Ok((Token::new(held, me), acquired)),
            Err(error) => Err(error),
        }
    }

    #[inline(always)]
    unsafe fn exclusive_at_once(
        at: NonNull<Self>,
        address: LockAddress,
        participant: &Participant<'_>,
    ) -> Option<Token> {
        // SAFETY: kept below if the lock is acquired.
        let record = unsafe { participant.hold_first::<Self>(address, HeldMode::Exclusive) }?;
        let me = participant.packed();
        // SAFETY: the caller promises an initialised lock that stays mapped.
        let lines = unsafe { Lines::new(at) };
        let entered = lines.enter_free(me);
        if entered && !lines.any_reader(participant) {
            return Some(Token::new(record.keep(), me));
        }
        contended::back_out_alone(lines.base, participant, record, entered);
        None
    }

    #[inline(always)]
    unsafe fn release_exclusive(at: NonNull<Self>, participant: &Participant<'_>, token: Token) {
        // SAFETY: the caller promises a lock that is initialised and mapped.
        let base = unsafe { at.as_ref() };
        if !participant.owns_first(token)
            || base.owner.load(Relaxed) != participant.packed() | ENTERED
        {
            // SAFETY: the caller's promise.
            return unsafe { contended::release_alone(base, participant, token) };
        }
        // SAFETY: the caller promises a token of this lock, which is released once.
        let record = unsafe { participant.release_alone(0) };
        if leave_alone(base) {
            return contended::wake_and_clear(base, record);
        }
        // SAFETY: it owns the token, so it is registered.
        unsafe { record.clear() };
    }

    unsafe fn mark_recovered(at: NonNull<Self>, participant: &Participant<'_>, token: Token) {
        if !participant.owns(token) {
            return;
        }
        // SAFETY: the caller holds the lock, so it is initialised and mapped.
        let base = unsafe { at.as_ref() };
        base.owner.fetch_and(!DIRTY, SeqCst);
    }

    #[inline(always)]
    unsafe fn acquire_shared(
        at: NonNull<Self>,
        address: LockAddress,
        participant: &Participant<'_>,
        patience: Patience,
    ) -> Result<SharedOutcome, LockError> {
        if planted(Bug::BitBeforeRecord) {
            // SAFETY: the caller promises an initialised lock that stays mapped.
            let lines = unsafe { Lines::new(at) };
            lines
                .reader(index_of(participant.packed()))
                .map(|(word, bit)| word.fetch_or(bit, SeqCst));
        }
        // SAFETY: kept below if the lock is acquired, by `contended::shared` else.
        let record = unsafe { participant.hold::<Self>(address, HeldMode::Shared) }?;
        let me = participant.packed();
        if record.is_again() {
            return Ok(SharedOutcome::Held(Token::new(record.keep(), me)));
        }
        // SAFETY: the caller promises an initialised lock that stays mapped.
        let lines = unsafe { Lines::new(at) };
        let Some(reader) = lines.reader(index_of(me)) else {
            return Err(LockError::NotRegistered);
        };
        if lines.join(reader) {
            return Ok(SharedOutcome::Held(Token::new(record.keep(), me)));
        }
        Ok(match contended::shared(lines, reader, participant, record, patience)? {
            Some(held) => SharedOutcome::Held(Token::new(held, me)),
            None => SharedOutcome::NeedsRecovery,
        })
    }

    #[inline(always)]
    unsafe fn shared_at_once(
        at: NonNull<Self>,
        address: LockAddress,
        participant: &Participant<'_>,
    ) -> Option<Token> {
        // SAFETY: kept below if the lock is acquired.
        let record = unsafe { participant.hold_first::<Self>(address, HeldMode::Shared) }?;
        let me = participant.packed();
        // SAFETY: the caller promises an initialised lock that stays mapped.
        let lines = unsafe { Lines::new(at) };
        if lines.reader(index_of(me)).is_some_and(|reader| lines.join(reader)) {
            return Some(Token::new(record.keep(), me));
        }
        contended::back_out_beside(lines, participant, record);
        None
    }

    #[inline(always)]
    unsafe fn release_shared(at: NonNull<Self>, participant: &Participant<'_>, token: Token) {
        // SAFETY: the caller promises a lock that is initialised and mapped.
        let lines = unsafe { Lines::new(at) };
        let once = participant.owns_first_once(token);
        let reader = if once { lines.reader_in_base(index_of(participant.packed())) } else { None };
        let Some(reader) = reader else {
            // SAFETY: the caller's promise.
            return unsafe { contended::release_beside(lines, participant, token) };
        };
        // SAFETY: the caller promises a token of this lock, which is released once.
        let mut record = unsafe { participant.release_alone(0) };
        if planted(Bug::RecordClearedEarly) {
            drop(record);
            // SAFETY: harmless: it is cleared again below.
            record = unsafe { participant.release_alone(0) };
        }
        if leave(lines, reader) {
            return contended::wake_claimant_and_clear(lines, record);
        }
        // SAFETY: it owns the token, so it is registered.
        unsafe { record.clear() };
    }

    unsafe fn owner(at: NonNull<Self>) -> Option<ParticipantId> {
        // SAFETY: the caller promises an initialised lock.
        let word = unsafe { at.as_ref() }.owner.load(SeqCst);
        if word & ENTERED == 0 { None } else { ParticipantId::unpack(word & OWNER) }
    }

    unsafe fn clear_reader(
        at: NonNull<Self>,
        max_participants: u32,
        index: u16,
        env: &dyn Environment,
    ) {
        // SAFETY: the caller promises that many bytes.
        if !unsafe { Self::has_length_for(at, max_participants) } {
            return;
        }
        // SAFETY: there is a lock of that length; it is used within this call only.
        let lines = unsafe { Lines::new(at) };
        if let Some((word, bit)) = lines.reader(index) {
            word.fetch_and(!bit, SeqCst);
        }
        env.wake_all(&lines.base.wake);
    }
}
