//! Opening and leaving a namespace.
//!
//! Both happen under the election, which one process at a time can hold. To take the control lock
//! before it has a participant of its own, its holder acts as participant 0, with a generation
//! that is new in each election: what an elector that was killed left locked is found to be a
//! dead one's.
//!
//! # Opening
//!
//! 1. The election. An object without a size or a magic is built from nothing.
//! 2. One that is there is judged. If nobody in it lives and it is not persistent, all segments
//!    it lists are destroyed, then the object itself, and the election starts anew: killed in
//!    between, there is still a list, or nothing at all. What the system doesn't let this user
//!    remove, another user of the namespace can, as long as there is a list. So then the object
//!    stays and is emptied where it is, in step 4: what it lists is retired, its roots are zeroed.
//!    A kill amid that leaves a namespace in which nobody lives, to be judged as before.
//! 3. A token of life, before anything says that the process is there. If the slot it belongs to
//!    has a tenant, that one has let go of the token: it is dead, unless something else proves that
//!    it lives, and then the slot is passed over.
//! 4. The dead are swept, that tenant among them.
//! 5. The process slot, then the process's participant. Killed in between: a dead process in a
//!    slot.
//!
//! # Leaving
//!
//! 1. What threads left in locks is swept, while their segments are still attached. Then all is
//!    detached, callbacks first. Both without the election: callbacks are the user's code.
//! 2. The election. The process marks itself dead and sweeps: leaving is dying in good order, and
//!    a kill at any point is the same as one a moment later.
//! 3. If nobody else lives, and the namespace is not persistent: as in step 2 of opening. What
//!    is another user's to remove stays, and the list with it.
//! 4. The token of life.
//!
//! A process that was declared dead while it lived has nothing to leave: others have swept it, or
//! will. It unmaps what it has, and gives its token back if it still has it.

use core::time::Duration;

use super::{Error, Me, Namespace, NamespaceConfig, Opened, Platform, ProcessLocal, acquire};
use crate::control::header::Layout;
use crate::control::process::{self, ProcessSlot};
use crate::control::segment::State;
use crate::control::{Control, ELECTOR, Found, initialise, participant_state, validate};
use crate::env::ThreadProof;
use crate::error::ErrorKind;
use crate::handle::{ObjectId, ParticipantId};
use crate::lock::{LockError, Patience};
use crate::participant::ParticipantLocal;
use crate::planted::{Bug, planted};
use crate::provider::{Election, ErasedProvider, Mapping, ProviderError, Root};
use crate::reap::{self, Actor};
use crate::sync::Ordering;

fn platform_error<E: ProviderError>(error: E) -> Error {
    Error::Provider(error.failure())
}

/// Unmaps a control object, unless its mapping is taken out.
struct Unmap<'r, R: Root> {
    root: &'r R,
    mapping: Option<Mapping>,
}

impl<R: Root> Drop for Unmap<'_, R> {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping {
            // SAFETY: mapped by this root; whoever keeps a view of it takes it out.
            unsafe { self.root.unmap(mapping) };
        }
    }
}

/// Frees the process-local memory again unless the open succeeds.
struct Claim<'l, 'a> {
    local: &'l ProcessLocal<'a>,
    kept: bool,
}

impl Drop for Claim<'_, '_> {
    fn drop(&mut self) {
        if !self.kept {
            self.local.reset();
        }
    }
}

/// The holder of the election, as an actor on the control segment.
struct Elector<'e, 'a> {
    control: Control<'a>,
    platform: Platform<'a>,
    local: &'e ProcessLocal<'a>,
    me: ParticipantLocal,
    generation: u32,
    patience: Duration,
}

impl<'e, 'a> Elector<'e, 'a> {
    /// Becomes participant 0. `slot` is the process slot whose token of life the caller holds.
    fn enter(
        control: Control<'a>,
        platform: Platform<'a>,
        local: &'e ProcessLocal<'a>,
        slot: u32,
        patience: Duration,
    ) -> Self {
        control.header.elector.store(&platform.env.process_proof());
        control.header.elector_slot.store(u64::from(slot), Ordering::Relaxed);
        let shared = &control.participants[ELECTOR as usize];
        shared.held.iter().for_each(|held| held.store(0, Ordering::Relaxed));
        let (last, _) = process::unpack(shared.state.load(Ordering::Relaxed));
        let generation = last.wrapping_add(1).max(1);
        let live = process::pack(generation, participant_state::LIVE);
        shared.state.store(live, Ordering::Release);
        // One before who lives, and has lost the election as it lost its token, is told.
        control.header.deaths.raise();
        let me = ParticipantLocal::new();
        control.enter(&me, ParticipantId { index: ELECTOR, generation }, shared);
        Self { control, platform, local, me, generation, patience }
    }
}

impl Drop for Elector<'_, '_> {
    fn drop(&mut self) {
        let live = process::pack(self.generation, participant_state::LIVE);
        let free = process::pack(self.generation, participant_state::FREE);
        let state = &self.control.participants[ELECTOR as usize].state;
        // Fails if this one was declared dead, and another is elected.
        let _ = state.compare_exchange(live, free, Ordering::AcqRel, Ordering::Relaxed);
        self.me.clear();
    }
}

impl Actor for Elector<'_, '_> {
    fn control(&self) -> &Control<'_> {
        &self.control
    }
    fn provider(&self) -> &dyn ErasedProvider {
        self.platform.provider
    }
    fn local(&self) -> &ProcessLocal<'_> {
        self.local
    }
    fn locked<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        let deadline = self.platform.env.now().saturating_add(self.patience);
        let me = self.control.participant(&self.control, &self.me);
        self.control.locked(&me, Patience::Until(deadline), work)
    }
}

/// Goes on with the leaving that a callback's panic interrupted.
struct Interrupted<'l, 'a, R: Root> {
    namespace: &'l Namespace<'a>,
    root: &'l R,
    swept: Result<u32, Error>,
}

impl<R: Root> Drop for Interrupted<'_, '_, R> {
    fn drop(&mut self) {
        // The panic says more than an error would, and what is left is the next reaper's.
        let _ = self.namespace.detach_and_resign(self.root, self.swept);
    }
}

/// What one election led to; `None` if the object was removed: start over.
type Outcome<'a> = Option<(Namespace<'a>, Opened)>;

/// What becomes of what a namespace has in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contents {
    Kept,
    /// Nobody in it lives, and it can't be removed.
    Emptied,
}

/// What `open` was asked, and what it works with.
struct Opening<'r, 'a, R: Root> {
    root: &'a R,
    platform: Platform<'a>,
    config: &'r NamespaceConfig,
    local: &'a ProcessLocal<'a>,
    claim: u64,
    layout: Layout,
}

impl<'a> Namespace<'a> {
    /// Joins the namespace behind `root`, creating it if there is none; reaps the dead.
    ///
    /// # Errors
    ///
    /// A control object that cannot be used is left as it is, and the error says which kind it
    /// is: [`Error::Foreign`], [`Error::Version`], [`Error::Fingerprint`], [`Error::Truncated`],
    /// [`Error::Copied`], [`Error::Corrupt`]. Besides: [`Error::InvalidConfig`],
    /// [`Error::TooManyProcesses`], [`Error::TooManyParticipants`], [`Error::LocalTooSmall`],
    /// [`Error::LocalInUse`], [`Error::Provider`] (with
    /// [`TimedOut`](crate::error::ErrorKind::TimedOut) when another process holds the election
    /// for longer than the configured patience).
    pub fn open<R: Root>(
        root: &'a R,
        platform: Platform<'a>,
        config: &NamespaceConfig,
        local: &'a ProcessLocal<'a>,
    ) -> Result<(Self, Opened), Error> {
        let layout = Layout::of(config).map_err(Error::InvalidConfig)?;
        let number = local.begin().ok_or(Error::LocalInUse)?;
        let mut claim = Claim { local, kept: false };
        let opening = Opening { root, platform, config, local, claim: number, layout };
        let mut recreated = false;
        loop {
            match opening.attempt(recreated)? {
                Some((namespace, opened)) => {
                    local.commit(number);
                    claim.kept = true;
                    return Ok((namespace, opened));
                }
                None => recreated = true,
            }
        }
    }

    /// Leaves; the last to leave removes everything unless persistent. All that this process has
    /// attached is unmapped, raw and pinned mappings included.
    ///
    /// Threads must have unregistered before: if one has not, the control segment stays mapped
    /// until the process ends, because the thread still points into it.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`], upon which nothing happened. [`Error::Provider`] or [`Error::Lock`]
    /// ([`DeclaredDead`](crate::lock::LockError::DeclaredDead) among them): the process is out of
    /// the namespace, but what it could not clean is left to the next reaper, or to the user whose
    /// objects they are ([`PermissionDenied`](crate::error::ErrorKind::PermissionDenied)).
    pub fn leave<R: Root>(self, root: &R) -> Result<(), Error> {
        if !self.is_open() {
            return Err(Error::Forked);
        }
        let own = self.own_index();
        let swept = self.with_control(|| reap::sweep_own(&self, self.process, own));
        self.detach_and_resign(root, swept)
    }

    /// The rest of leaving. A callback's panic does not end it: it goes on while unwinding.
    fn detach_and_resign<R: Root>(&self, root: &R, swept: Result<u32, Error>) -> Result<(), Error> {
        let interrupted = Interrupted { namespace: self, root, swept };
        self.detach_all();
        core::mem::forget(interrupted);
        let result = if self.is_declared_dead() {
            Err(Error::Lock(LockError::DeclaredDead))
        } else {
            self.resign(root)
        };
        acquire(&self.me, self.platform.env).participant.clear();
        self.platform.env.release(self.process.0);
        self.local.reset();
        if swept == Ok(0) {
            // SAFETY: no participant of this process is registered, no segment of the main region
            // is attached, and the namespace goes; it was mapped by this root, whatever `leave` was
            // given.
            unsafe { self.root.unmap(self.mapping) };
        }
        result.and(swept.map(|_| ()))
    }

    fn own_index(&self) -> u16 {
        let me = acquire(&self.me, self.platform.env);
        me.participant.id().map_or(ELECTOR, |id| id.index)
    }

    /// Takes the process out of the control segment, and the namespace out of the world if it
    /// was the last.
    fn resign<R: Root>(&self, root: &R) -> Result<(), Error> {
        let (slot, generation) = self.process;
        let shared: &ProcessSlot = &self.control.processes[slot as usize];
        let elected = root.elect_existing(self.patience).map_err(platform_error);
        let ours = |id: ObjectId| crate::control::same_object(self.control.header.id(), id);
        let mut election = match elected {
            Ok(election) if ours(election.id()) => election,
            // The name means something else, or nothing: somebody removed it while it was in use.
            Ok(_) => return self.resign_nameless(),
            Err(Error::Provider(failure)) if failure.kind == ErrorKind::NotFound => {
                return self.resign_nameless();
            }
            // The election cannot be had: the others will find this process dead and sweep it.
            Err(error) => {
                shared.mark_dead(generation);
                return Err(error);
            }
        };
        let elector = Elector::enter(self.control, self.platform, self.local, slot, self.patience);
        shared.mark_dead(generation);
        let swept = reap::reap(&elector);
        if self.is_persistent() || anyone_lives(&self.control) {
            return swept.map(|_| ());
        }
        if planted(Bug::ListRemovedFirst) {
            election.remove().map_err(platform_error)?;
        }
        clear_out(&self.control, self.platform.provider)?;
        drop(elector);
        election.remove().map_err(platform_error)
    }

    /// Takes the process out of a control segment that has no name any more. Nobody can join it, so
    /// that whoever finds itself the last may remove the objects without an election; of several
    /// that leave at once the last to be marked does, and twice does no harm.
    fn resign_nameless(&self) -> Result<(), Error> {
        let (slot, generation) = self.process;
        self.control.processes[slot as usize].mark_dead(generation);
        reap::prove(&self.control);
        if anyone_lives(&self.control) {
            return Ok(());
        }
        clear_out(&self.control, self.platform.provider)
    }
}

/// Whether any process is not known to be dead; after [`reap::prove`].
fn anyone_lives(control: &Control<'_>) -> bool {
    control.processes.iter().any(|slot| slot.get().1 == process::LIVE)
}

/// Removes the object of every segment that is listed, in a namespace in which nobody lives.
///
/// # Errors
///
/// Of those that could not be removed; the others are. That it is not for this user to remove one
/// is what the error says only if there is no other.
fn clear_out(control: &Control<'_>, provider: &dyn ErasedProvider) -> Result<(), Error> {
    control.header.deaths.raise();
    let mut result = Ok(());
    for slot in control.segments() {
        let state = slot.word().state;
        let Some(handle) = slot.handle() else { continue };
        if state == State::Free || handle.is_main_region() {
            continue;
        }
        // Nothing is known of an object that was never finished but its name.
        let id = if state == State::Creating { ObjectId::default() } else { slot.id() };
        match provider.destroy(handle, id) {
            Ok(()) => {}
            // Another's by now.
            Err(failure) if failure.kind == ErrorKind::Foreign => {}
            Err(_) if result.is_err_and(|error| !is_not_ours_to_do(error)) => {}
            Err(failure) => result = Err(Error::Provider(failure)),
        }
    }
    result
}

/// Whether the system leaves it to another user.
fn is_not_ours_to_do(error: Error) -> bool {
    matches!(error, Error::Provider(failure) if failure.kind == ErrorKind::PermissionDenied)
}

impl<'a, R: Root> Opening<'_, 'a, R> {
    fn attempt(&self, recreated: bool) -> Result<Outcome<'a>, Error> {
        let mut election = self.root.elect(self.config.patience).map_err(platform_error)?;
        if election.size() != 0 {
            let mapping = election.map().map_err(platform_error)?;
            let unmap = Unmap { root: self.root, mapping: Some(mapping) };
            // SAFETY: the mapping is kept for as long as the view, see `join`.
            let found = unsafe { validate(&mapping, election.id(), self.platform.env) }?;
            if let Found::Valid(control) = found {
                return self.enter(&mut election, control, unmap);
            }
        }
        let created = self.create(&mut election, recreated);
        if created.is_err() {
            // Nobody else has seen it. What cannot be removed is built by the next to come.
            let _ = election.remove();
        }
        created
    }

    /// Builds the control segment in a new object, and enters it.
    fn create(
        &self,
        election: &mut R::Election<'_>,
        recreated: bool,
    ) -> Result<Outcome<'a>, Error> {
        self.require(self.layout.max_segments)?;
        let mapping = election.create(self.layout.total).map_err(platform_error)?;
        let unmap = Unmap { root: self.root, mapping: Some(mapping) };
        // SAFETY: a fresh mapping of that size, and the election is held.
        let control = unsafe {
            initialise(
                &mapping,
                self.layout,
                self.config.persistent,
                election.id(),
                self.platform.env,
            )
        };
        let opened = if recreated { Opened::Recreated } else { Opened::Created };
        self.join(control, unmap, opened, Contents::Kept)
    }

    /// Enters a namespace that is there, or removes it if nobody in it lives.
    fn enter(
        &self,
        election: &mut R::Election<'_>,
        control: Control<'a>,
        unmap: Unmap<'_, R>,
    ) -> Result<Outcome<'a>, Error> {
        reap::prove(&control);
        if anyone_lives(&control) {
            return self.join(control, unmap, Opened::Joined, Contents::Kept);
        }
        if control.header.is_persistent() {
            return self.join(control, unmap, Opened::Resumed, Contents::Kept);
        }
        let cleared = clear_out(&control, self.platform.provider);
        match cleared.and_then(|()| election.remove().map_err(platform_error)) {
            Ok(()) => Ok(None),
            Err(error) if is_not_ours_to_do(error) => {
                self.join(control, unmap, Opened::Recreated, Contents::Emptied)
            }
            Err(error) => Err(error),
        }
    }

    fn require(&self, segments: u32) -> Result<(), Error> {
        let has = u32::try_from(self.local.segments.len()).unwrap_or(u32::MAX);
        if has < segments { Err(Error::LocalTooSmall(has, segments)) } else { Ok(()) }
    }

    /// Takes a process slot.
    fn join(
        &self,
        control: Control<'a>,
        mut unmap: Unmap<'_, R>,
        opened: Opened,
        contents: Contents,
    ) -> Result<Outcome<'a>, Error> {
        self.require(control.layout.max_segments)?;
        let env = self.platform.env;
        for (index, slot) in control.processes.iter().enumerate() {
            let index = index as u32;
            match env.claim(index) {
                Ok(()) => {}
                Err(failure) if failure.kind == ErrorKind::AlreadyExists => continue,
                Err(failure) => return Err(Error::Provider(failure)),
            }
            match self.take(control, index, slot, contents) {
                Ok(Some(mut namespace)) => {
                    if let Some(mapping) = unmap.mapping.take() {
                        namespace.mapping = mapping;
                    }
                    return Ok(Some((namespace, opened)));
                }
                Ok(None) => env.release(index),
                Err(error) => {
                    env.release(index);
                    return Err(error);
                }
            }
        }
        Err(Error::TooManyProcesses(control.layout.max_processes))
    }

    /// Takes the slot whose token of life this process holds; `None` if it can't be used.
    fn take(
        &self,
        control: Control<'a>,
        index: u32,
        slot: &ProcessSlot,
        contents: Contents,
    ) -> Result<Option<Namespace<'a>>, Error> {
        let (tenant, _) = slot.get();
        if !control.process_is_dead(index, tenant) {
            return Ok(None);
        }
        slot.mark_dead(tenant);
        let elector =
            Elector::enter(control, self.platform, self.local, index, self.config.patience);
        if contents == Contents::Emptied {
            elector.locked(|| reap::empty(&control))?;
            control.header.set_persistent(self.config.persistent);
        }
        reap::make_room(&elector)?;
        let (last, state) = slot.get();
        // Not swept yet, or at its last generation, which retires it.
        if state != process::FREE || last == u32::MAX {
            return Ok(None);
        }
        let process = (index, last + 1);
        slot.proof.store(&self.platform.env.process_proof());
        slot.state.store(process::pack(process.1, process::LIVE), Ordering::Release);
        // Threads take turns with this one: it is never found dead by a thread's end.
        let claimed = elector
            .locked(|| control.claim_participant(process, ThreadProof::default()))
            .and_then(|claimed| {
                claimed.ok_or(Error::TooManyParticipants(control.layout.max_participants))
            });
        let (id, shared) = match claimed {
            Ok(claimed) => claimed,
            Err(error) => {
                slot.state.store(process::pack(process.1, process::FREE), Ordering::Release);
                return Err(error);
            }
        };
        control.header.joined.fetch_add(1, Ordering::AcqRel);
        self.platform.env.wake_all(&control.header.joined);
        let participant = ParticipantLocal::new();
        control.enter(&participant, id, shared);
        Ok(Some(Namespace {
            platform: self.platform,
            control,
            root: self.root,
            mapping: Mapping { base: control.base, len: control.layout.total, token: 0 },
            local: self.local,
            claim: self.claim,
            process,
            me: spin::Mutex::new(Me { participant, random: self.platform.env.next_u64() }),
            threads_below: core::sync::atomic::AtomicU32::new(0),
            patience: self.config.patience,
        }))
    }
}
