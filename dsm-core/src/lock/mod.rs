//! Locks in shared memory.
//!
//! [`RawLock`] is the protocol; [`RwLock`](rw::RwLock) is the lock that survives its owner's
//! death, [`SpinLock`](spin::SpinLock) the one for bare metal and single processes. Both are used
//! through [`LockRef`], which knows where the lock lies and hands out guards.

pub(crate) mod kind;
pub mod rw;
pub mod spin;

use core::fmt;
use core::marker::PhantomData;
use core::num::NonZeroU64;
use core::ptr::NonNull;
use core::time::Duration;

pub use kind::{KindName, LockKind};

use crate::env::Environment;
use crate::handle::{LockAddress, ParticipantId};
use crate::participant::Participant;

/// How a lock is recorded in a participant's list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeldMode {
    /// Shared with other readers.
    Shared,
    /// Alone.
    Exclusive,
}

/// Why a lock was not acquired. Nothing is held or changed then.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else has it (try forms).
    WouldBlock,
    /// The deadline passed (timed forms).
    TimedOut,
    /// This participant holds the lock already, and not both times shared.
    WouldDeadlock,
    /// This participant holds as many locks as it can: one less than
    /// [`MAX_HELD`](crate::participant::MAX_HELD).
    TooManyLocks,
    /// The participant is not registered in this process, or with this namespace: after a fork,
    /// open the namespace anew.
    NotRegistered,
    /// A lock of an embedder's own kind was to be held shared, and this process or this participant
    /// has used too many kinds already: see [`RawLock::clear_reader`].
    TooManyKinds,
    /// This participant, or its process, was declared dead while it lived, and what it held is
    /// others' by now: see [`deaths`](crate::deaths). Leave the namespace, and open it anew.
    DeclaredDead,
}

impl LockError {
    /// Whether somebody else had the lock for as long as the caller was ready to wait, which may
    /// have been no time at all: later the same call may succeed.
    ///
    /// ```
    /// use dsm_core::lock::LockError;
    ///
    /// assert!(LockError::TimedOut.is_timeout() && LockError::WouldBlock.is_timeout());
    /// assert!(!LockError::WouldDeadlock.is_timeout());
    /// ```
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut | Self::WouldBlock)
    }

    /// Whether the caller would have waited for itself: it is to drop a guard first.
    ///
    /// ```
    /// use dsm_core::lock::LockError;
    ///
    /// assert!(LockError::WouldDeadlock.is_would_deadlock());
    /// ```
    #[must_use]
    pub const fn is_would_deadlock(&self) -> bool {
        matches!(self, Self::WouldDeadlock)
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WouldBlock => "the lock is held by another participant",
            Self::TimedOut => "the lock was not free before the deadline",
            Self::WouldDeadlock => {
                "this thread holds the lock already; drop its guard before asking again"
            }
            Self::TooManyLocks => "this thread holds too many locks; drop some guards first",
            Self::NotRegistered => {
                "this thread is not registered with the namespace; after a fork, open it anew"
            }
            Self::TooManyKinds => {
                "this thread has used three other kinds of locks, or this process eight; use fewer"
            }
            Self::DeclaredDead => {
                "this process, or this thread, was declared dead while it lived, and what it held \
                 was given to others: its token of life was lost, as when a program closes \
                 descriptors that it did not open; leave the namespace and open it anew"
            }
        })
    }
}

crate::debug_is_display!(LockError);
impl core::error::Error for LockError {}

/// How long to wait for a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// Not at all.
    Try,
    /// Until the environment's clock shows this.
    Until(Duration),
    /// As long as the owner lives.
    Forever,
}

/// What state the protected data is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Acquired {
    /// As its last owner left it.
    Clean,
    /// The owner died inside: rebuild the index before anything else. Stays so for the next
    /// owner if this one dies too, or lets go without [`ExclusiveGuard::mark_recovered`].
    FromDead,
}

/// A held lock: what to give back. Plain data; see [`LockRef`] for guards.
///
/// One word, never zero, because guards move: a narrow field would make each move of a guard
/// wait for the stores before it, and a table's lookup returns one through three layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Token(NonZeroU64);

impl Token {
    const HELD_SHIFT: u32 = 48;
    /// Keeps the word from being zero.
    const MARK: u64 = 1 << 63;

    /// Composes a token of the index of the record in the participant's list and
    /// [`Participant::packed`].
    #[inline(always)]
    #[must_use]
    pub const fn new(held: u8, owner: u64) -> Self {
        debug_assert!(owner >> Self::HELD_SHIFT == 0);
        let word = Self::MARK | owner | (held as u64) << Self::HELD_SHIFT;
        match NonZeroU64::new(word) {
            Some(word) => Self(word),
            None => unreachable!(),
        }
    }

    /// Index of the record in the participant's list.
    #[inline(always)]
    #[must_use]
    pub const fn held(self) -> u8 {
        (self.0.get() >> Self::HELD_SHIFT) as u8
    }

    /// [`Participant::packed`] at the time of acquisition: a fork child's differs.
    #[inline(always)]
    #[must_use]
    pub const fn owner(self) -> u64 {
        self.0.get() & ((1 << Self::HELD_SHIFT) - 1)
    }
}

/// A reader-writer lock in shared memory.
///
/// The functions take pointers, not references, because a lock is longer than its type when a
/// namespace has more participants than fit into one cache line.
///
/// # Safety
///
/// What a lock protects is handed out by reference, in several processes, to whoever the lock says
/// may have it:
///
/// - An exclusive acquisition must exclude every other one, exclusive or shared, by any participant
///   that is not [dead](crate::participant::Peers::is_dead); and each acquisition must happen after
///   the releases that it waited for.
/// - An acquisition makes a record by [`Participant::hold`] before it touches the lock, and keeps
///   it exactly if it succeeds. A release lets go of the lock first and clears the record after
///   that.
/// - The functions may touch nothing but the `size_for` bytes from `at` on, which are shared memory
///   that other processes have mapped elsewhere.
/// - [`IDENTITY`](Self::IDENTITY) and [`clear_reader`](Self::clear_reader) must be as described.
pub unsafe trait RawLock: Sized {
    /// Which kind of lock this is; not zero. Two types may have the same identity only if each can
    /// use a lock that the other one built, also while that one uses it: so a lock that is changed
    /// in its layout or its protocol gets another one. An area and a table record it, and refuse
    /// to be attached with locks of another kind.
    ///
    /// Eight bytes of text are as good as a random number, and can be read in an error:
    /// `u64::from_le_bytes(*b"ticket\0\x01")`.
    const IDENTITY: u64;

    /// Bytes a lock takes in a namespace of that many participants: a multiple of 64, at least
    /// `size_of::<Self>()`, and always the same.
    fn size_for(max_participants: u32) -> usize;

    /// Builds a free lock in place.
    ///
    /// # Safety
    ///
    /// `at` must be valid for writes of `size_for(max_participants)` bytes, aligned to 64, and
    /// in use by nobody.
    unsafe fn init(at: NonNull<Self>, max_participants: u32);

    /// Acquires alone.
    ///
    /// # Errors
    ///
    /// See [`LockError`].
    ///
    /// # Safety
    ///
    /// `at` must be an initialised lock of `participant`'s namespace, at `address` in it, and
    /// stay mapped until released.
    unsafe fn acquire_exclusive(
        at: NonNull<Self>,
        address: LockAddress,
        participant: &Participant<'_>,
        patience: Patience,
    ) -> Result<(Token, Acquired), LockError>;

    /// Acquires alone if nothing at all is in the way: this participant holds no lock, nobody holds
    /// this one, and the data is clean. `None` otherwise, with nothing held and no reason given:
    /// [`acquire_exclusive`](Self::acquire_exclusive) does what has to be done then.
    ///
    /// What most acquisitions come down to, in a form that is small enough to be part of every
    /// caller, and whose one-word result stays in a register.
    ///
    /// # Safety
    ///
    /// As for `acquire_exclusive`.
    #[inline(always)]
    unsafe fn exclusive_at_once(
        at: NonNull<Self>,
        address: LockAddress,
        participant: &Participant<'_>,
    ) -> Option<Token> {
        if participant.holds_any() {
            return None;
        }
        // SAFETY: the caller's promise.
        match unsafe { Self::acquire_exclusive(at, address, participant, Patience::Try) } {
            Ok((token, Acquired::Clean)) => Some(token),
            Ok((token, Acquired::FromDead)) => {
                // SAFETY: just acquired.
                unsafe { Self::release_exclusive(at, participant, token) };
                None
            }
            Err(_) => None,
        }
    }

    /// Releases an exclusive hold. Does nothing in a process other than the one that acquired, nor
    /// for a participant that was declared dead: see [`Participant::owns`].
    ///
    /// # Safety
    ///
    /// `token` must come from an `acquire_exclusive` of this lock by this participant and not
    /// have been released.
    unsafe fn release_exclusive(at: NonNull<Self>, participant: &Participant<'_>, token: Token);

    /// Declares the data rebuilt, so that the next owner is told `Clean` again.
    ///
    /// # Safety
    ///
    /// As for `release_exclusive`; the token stays held.
    unsafe fn mark_recovered(at: NonNull<Self>, participant: &Participant<'_>, token: Token);

    /// Acquires beside other readers. A reader never sees data that a dead owner left behind
    /// unrecovered: that is [`SharedOutcome::NeedsRecovery`], with nothing held.
    ///
    /// # Errors
    ///
    /// See [`LockError`].
    ///
    /// # Safety
    ///
    /// As for `acquire_exclusive`.
    unsafe fn acquire_shared(
        at: NonNull<Self>,
        address: LockAddress,
        participant: &Participant<'_>,
        patience: Patience,
    ) -> Result<SharedOutcome, LockError>;

    /// Acquires beside other readers if nothing is in the way, as
    /// [`exclusive_at_once`](Self::exclusive_at_once) does alone.
    ///
    /// # Safety
    ///
    /// As for `acquire_exclusive`.
    #[inline(always)]
    unsafe fn shared_at_once(
        at: NonNull<Self>,
        address: LockAddress,
        participant: &Participant<'_>,
    ) -> Option<Token> {
        if participant.holds_any() {
            return None;
        }
        // SAFETY: the caller's promise.
        match unsafe { Self::acquire_shared(at, address, participant, Patience::Try) } {
            Ok(SharedOutcome::Held(token)) => Some(token),
            _ => None,
        }
    }

    /// Releases a shared hold. Does nothing where `release_exclusive` does nothing.
    ///
    /// # Safety
    ///
    /// `token` must come from an `acquire_shared` of this lock by this participant and not have
    /// been released.
    unsafe fn release_shared(at: NonNull<Self>, participant: &Participant<'_>, token: Token);

    /// Who holds it exclusively, for tools; `None` if nobody does.
    ///
    /// # Safety
    ///
    /// `at` must be an initialised lock.
    unsafe fn owner(at: NonNull<Self>) -> Option<ParticipantId>;

    /// Removes what the participant slot's dead tenant may have left in the lock as a reader, and
    /// wakes those who wait for that. Does nothing in a lock that keeps no mark by participant, as
    /// where readers are only counted: such a lock cannot be had from dead readers.
    ///
    /// Called by whoever sweeps the dead, in any process that [knows](LockKind) this kind of lock,
    /// before the slot has a next tenant; and again, if the sweeper dies. A mark that stayed would
    /// seem to be the next tenant's, and a writer would wait for it for ever. (A writer that waits
    /// for a dead reader need not wait for the sweep: see
    /// [`Peers::evict_reader`](crate::participant::Peers::evict_reader).)
    ///
    /// The caller holds the control lock: this must not wait, take a lock, or panic.
    ///
    /// # Safety
    ///
    /// `at` must be aligned to 64 and mapped for `size_for(max_participants)` bytes, the tenant be
    /// dead, and the slot be kept from being given out anew. A record said that a lock of this kind
    /// is there, but a record may outlive its lock: the memory may have another use by now, which
    /// the implementation must find out, as by a mark that every such lock has, and leave alone.
    /// (Zeros are what is left where a table has had its locks.)
    unsafe fn clear_reader(
        at: NonNull<Self>,
        max_participants: u32,
        index: u16,
        env: &dyn Environment,
    );
}

/// What became of a shared acquisition.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub enum SharedOutcome {
    /// Held.
    Held(Token),
    /// Not held: a dead owner left the data half-changed. Acquire exclusively, recover, retry.
    NeedsRecovery,
}

/// A lock and where it lies: the form in which locks are used.
pub struct LockRef<'l, L> {
    at: NonNull<L>,
    address: LockAddress,
    _lock: PhantomData<&'l L>,
}

impl<L> Clone for LockRef<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for LockRef<'_, L> {}

// Acquisition is inlined always: out of line its outcome goes through memory, to be loaded in
// another width right away, and a shared cycle takes 26 ns instead of 15 (measured; the two
// atomic operations alone take 11).
impl<'l, L: RawLock> LockRef<'l, L> {
    /// Names a lock.
    ///
    /// # Safety
    ///
    /// `at` must be an initialised lock, mapped for `'l`, at `address` in the namespace of every
    /// participant this is used with. In a segment of a namespace, the address must be what this
    /// process was told by [`Segment::lock_address`](crate::segment::Segment::lock_address) or
    /// [`Namespace::lock_address`](crate::namespace::Namespace::lock_address).
    #[inline]
    #[must_use]
    pub unsafe fn new(at: NonNull<L>, address: LockAddress) -> Self {
        Self { at, address, _lock: PhantomData }
    }

    /// Acquires alone. The data may need recovery: see [`ExclusiveGuard::acquired`].
    ///
    /// # Errors
    ///
    /// See [`LockError`].
    #[inline(always)]
    pub fn exclusive<'p>(
        self,
        participant: &'p Participant<'p>,
        patience: Patience,
    ) -> Result<ExclusiveGuard<'p, L>, LockError>
    where
        'l: 'p,
    {
        // SAFETY: `new` promised an initialised lock at this address, mapped for 'l.
        let (token, acquired) =
            unsafe { L::acquire_exclusive(self.at, self.address, participant, patience) }?;
        Ok(ExclusiveGuard { at: self.at, participant, token, acquired })
    }

    /// Acquires shared; `None` if a dead owner's damage must be recovered first.
    ///
    /// # Errors
    ///
    /// See [`LockError`].
    #[inline(always)]
    pub fn shared<'p>(
        self,
        participant: &'p Participant<'p>,
        patience: Patience,
    ) -> Result<Option<SharedGuard<'p, L>>, LockError>
    where
        'l: 'p,
    {
        // SAFETY: as in `exclusive`.
        match unsafe { L::acquire_shared(self.at, self.address, participant, patience) }? {
            SharedOutcome::Held(token) => Ok(Some(SharedGuard { at: self.at, participant, token })),
            SharedOutcome::NeedsRecovery => Ok(None),
        }
    }

    /// Acquires shared if nothing is in the way: see
    /// [`RawLock::exclusive_at_once`].
    #[inline(always)]
    #[must_use]
    pub fn shared_at_once<'p>(self, participant: &'p Participant<'p>) -> Option<SharedGuard<'p, L>>
    where
        'l: 'p,
    {
        // SAFETY: as in `exclusive`.
        let token = unsafe { L::shared_at_once(self.at, self.address, participant) }?;
        Some(SharedGuard { at: self.at, participant, token })
    }

    /// Who holds it exclusively, for tools.
    #[must_use]
    pub fn owner(self) -> Option<ParticipantId> {
        // SAFETY: `new` promised an initialised lock.
        unsafe { L::owner(self.at) }
    }
}

/// Holds a lock alone until dropped. Not `Send`.
pub struct ExclusiveGuard<'p, L: RawLock> {
    at: NonNull<L>,
    participant: &'p Participant<'p>,
    token: Token,
    acquired: Acquired,
}

impl<'p, L: RawLock> ExclusiveGuard<'p, L> {
    /// What state the data is in.
    #[inline]
    pub fn acquired(&self) -> Acquired {
        self.acquired
    }

    /// The holder.
    #[inline]
    #[must_use]
    pub fn participant(&self) -> &'p Participant<'p> {
        self.participant
    }

    /// Declares the data rebuilt after [`Acquired::FromDead`].
    pub fn mark_recovered(&mut self) {
        // SAFETY: the guard holds the lock by this token.
        unsafe { L::mark_recovered(self.at, self.participant, self.token) };
        self.acquired = Acquired::Clean;
    }
}

impl<L: RawLock> Drop for ExclusiveGuard<'_, L> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the guard holds the lock by this token, and gives it back once.
        unsafe { L::release_exclusive(self.at, self.participant, self.token) }
    }
}

/// Holds a lock beside other readers until dropped. Not `Send`.
pub struct SharedGuard<'p, L: RawLock> {
    at: NonNull<L>,
    participant: &'p Participant<'p>,
    token: Token,
}

impl<'p, L: RawLock> SharedGuard<'p, L> {
    /// The holder.
    #[inline]
    #[must_use]
    pub fn participant(&self) -> &'p Participant<'p> {
        self.participant
    }
}

impl<L: RawLock> Drop for SharedGuard<'_, L> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the guard holds the lock by this token, and gives it back once.
        unsafe { L::release_shared(self.at, self.participant, self.token) }
    }
}
