//! Whose turn it is to initialise a name: exactly one participant's, and no lock held meanwhile.
//!
//! A caller who finds no entry, or one whose initialiser is dead, claims the name
//! (INITIALISING(id)); the others wait. The claimant runs the caller's initialiser and then
//! publishes, or, on an error or a panic, deletes the entry, so that size and type are free
//! again. See the essay of `entry` for the states and what a kill leaves.
//!
//! **Waiting.** A waiter sleeps on the header's wake word, a few milliseconds at a time, and then
//! asks whether the claimant lives: a killed one is noticed within [`LONGEST_NAP`] by all waiters,
//! one of which takes over.
//!
//! **Cycles.** While it waits, a participant shows the hash of the name it waits for in its slot
//! (`waits_for`). A waiter follows the chain: who initialises the name that I wait for, what does
//! that one wait for, who initialises *that* name, and so on; if it arrives at itself, nobody on
//! the way can go on. Edges that are looked at one after the other still make a true picture: the
//! names that a waiter owns stay its own while it waits, and a shown name that is READY by now
//! has no initialiser, so the chain ends there. All on a circle see the same circle, if not at the
//! first look then at the next; the one with the largest id gives up with an error, which fails
//! its initialiser and lets the others go on. An initialiser that hands its work to another thread
//! and waits for that is not seen: the chain breaks there.

use std::time::Duration;

use dsm_core::handle::ParticipantId;
use dsm_core::participant::{Participant, Peers};
use dsm_core::planted::{Bug, planted};
use dsm_core::sync::Ordering;

use crate::entry::{Entry, Shape, State};
use crate::error::kind::ErrorKind;
use crate::error::{Error, Mismatch};
use crate::name::NameKey;
use crate::names::{Seen, Verdict};
use crate::process::Attachment;

const FIRST_NAP: Duration = Duration::from_millis(1);
const LONGEST_NAP: Duration = Duration::from_millis(8);

/// Who is to do what with a name.
pub(crate) enum Turn<'a> {
    /// It can be used.
    Ready(Seen),
    /// The caller initialises it.
    Mine(Claim<'a>),
}

/// Finds a name ready, or claims it for the caller, waiting for others who initialise it.
pub(crate) fn take<'a>(
    home: &'a Attachment,
    name: &'a str,
    key: &NameKey,
    asked: &Shape,
) -> Result<Turn<'a>, Error> {
    let me = home.participant()?;
    let mut waiting = Waiting::new(home, me, name, key);
    loop {
        let ticket = home.header().wake.load(Ordering::Acquire);
        let owner = match home.names().look(home, key)? {
            Some(seen) => match seen.state {
                State::Ready => return fit(home, name, seen, asked).map(Turn::Ready),
                State::Initialising(id) | State::Removing(id) => Some(id),
            },
            None => None,
        };
        if let Some(owner) = owner.filter(|id| !home.namespace().is_dead(*id)) {
            waiting.for_owner(owner, ticket)?;
        } else if let Some(claim) = claim(home, me, key, asked)? {
            return Ok(Turn::Mine(claim));
        }
    }
}

/// Checks that what is there is what was asked for.
fn fit(home: &Attachment, name: &str, seen: Seen, asked: &Shape) -> Result<Seen, Error> {
    if seen.shape.fits(asked) {
        return Ok(seen);
    }
    match (seen.shape.describe(), asked.describe()) {
        (Some(there), Some(asked)) => {
            let name = name.to_owned();
            let mismatch = Mismatch { name, there, asked, in_this_process: false };
            Err(ErrorKind::Mismatch(mismatch).into())
        }
        _ => Err(home.damaged("an entry of unknown kind")),
    }
}

/// Tries to make the name the caller's; `None` if somebody else was faster.
fn claim<'a>(
    home: &'a Attachment,
    me: &Participant<'_>,
    key: &NameKey,
    asked: &Shape,
) -> Result<Option<Claim<'a>>, Error> {
    let id = me.id().ok_or(ErrorKind::Forked)?;
    let mine = home.names().upsert(
        home,
        key,
        || Entry::claimed(*asked, id),
        |entry| {
            match entry.state() {
                Some(State::Ready) => return Ok(Verdict::Keep(false)),
                Some(State::Initialising(owner) | State::Removing(owner))
                    if owner != id
                        && !home.namespace().is_dead(owner)
                        && !planted(Bug::ClaimUnlooked) =>
                {
                    return Ok(Verdict::Keep(false));
                }
                _ => {}
            }
            // Left by the dead: what it names may be pinned, and looked up before it was removed.
            home.header().changes.fetch_add(1, Ordering::AcqRel);
            home.release_object(entry.handle())?;
            entry.set_object(0, 0);
            Ok(Verdict::Delete(false))
        },
    )?;
    // A dead owner's entry was deleted: the next round inserts a fresh one.
    Ok(mine.unwrap_or(true).then(|| Claim { home, key: *key, id, open: true }))
}

/// The right, and duty, to initialise a name. Dropped without `publish`, it frees the name.
pub(crate) struct Claim<'a> {
    home: &'a Attachment,
    key: NameKey,
    id: ParticipantId,
    open: bool,
}

impl Claim<'_> {
    /// Makes the name usable: records the object, pins it, stores READY.
    pub(crate) fn publish(
        mut self,
        handle: u64,
        table: u64,
        pin: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let id = self.id;
        let published = self.home.names().modify(self.home, &self.key, |entry| {
            if entry.state() != Some(State::Initialising(id)) {
                return Ok(Verdict::Keep(false));
            }
            if planted(Bug::ReadyBeforeObject) {
                entry.set_state(State::Ready);
            }
            if !planted(Bug::PinBeforeHandle) {
                entry.set_object(handle, table);
            }
            pin()?;
            if planted(Bug::PinBeforeHandle) {
                entry.set_object(handle, table);
            }
            entry.set_state(State::Ready);
            Ok(Verdict::Keep(true))
        })?;
        if published != Some(true) {
            return Err(self.home.damaged("an entry was changed while it was initialised"));
        }
        self.open = false;
        self.home.wake();
        Ok(())
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        // In a fork child there is no participant, and the claim is the parent's.
        let Ok(me) = self.home.participant() else { return };
        if me.id() != Some(self.id) {
            return;
        }
        let id = self.id;
        // A failure leaves INITIALISING(id): taken over once this thread's participant is gone.
        let freed = self.home.names().modify(self.home, &self.key, |entry| {
            if entry.state() != Some(State::Initialising(id)) {
                return Ok(Verdict::Keep(()));
            }
            self.home.release_object(entry.handle())?;
            Ok(Verdict::Delete(()))
        });
        if freed.is_ok() {
            self.home.wake();
        }
    }
}

/// One caller's wait for a name; shows it to the others until dropped.
struct Waiting<'a> {
    home: &'a Attachment,
    me: &'a Participant<'a>,
    name: &'a str,
    hash: u64,
    nap: Duration,
    since: Option<Duration>,
}

impl<'a> Waiting<'a> {
    fn new(home: &'a Attachment, me: &'a Participant<'a>, name: &'a str, key: &NameKey) -> Self {
        Self { home, me, name, hash: wait_hash(key), nap: FIRST_NAP, since: None }
    }

    /// Sleeps until something changed or it is time to look again.
    fn for_owner(&mut self, owner: ParticipantId, ticket: u32) -> Result<(), Error> {
        let my_id = self.me.id().ok_or(ErrorKind::Forked)?;
        if owner == my_id {
            return Err(ErrorKind::OwnInitialiser { name: self.name.into() }.into());
        }
        let env = self.home.namespace().env();
        let now = env.now();
        if self.since.is_none() {
            self.since = Some(now);
            self.show(self.hash);
        }
        let waited = now.saturating_sub(self.since.unwrap_or(now));
        if self.home.initialiser_patience().is_some_and(|patience| waited >= patience) {
            let (name, process) = (self.name.into(), self.home.process_of(owner));
            return Err(ErrorKind::InitialiserTimedOut { name, waited, process }.into());
        }
        if self.circle(my_id, owner)?.is_some_and(|largest| largest == my_id.pack()) {
            return Err(ErrorKind::InitialiserCycle { name: self.name.into() }.into());
        }
        env.wait(&self.home.header().wake, ticket, self.nap);
        self.nap = (self.nap * 2).min(LONGEST_NAP);
        Ok(())
    }

    fn show(&self, hash: u64) {
        if let Some(slot) = self.me.slot() {
            slot.waits_for.store(hash, Ordering::SeqCst);
        }
    }

    /// The largest id on the circle of waits that this one is part of; `None` if there is none.
    fn circle(&self, me: ParticipantId, owner: ParticipantId) -> Result<Option<u64>, Error> {
        let namespace = self.home.namespace();
        let (mut at, mut largest) = (owner, me.pack().max(owner.pack()));
        if namespace.waits_for(at) == 0 {
            return Ok(None);
        }
        let mut owners = Vec::new();
        self.home.names().scan(self.home, &mut |key, seen| {
            if let State::Initialising(id) | State::Removing(id) = seen.state {
                owners.push((wait_hash(key), id));
            }
        })?;
        for _ in 0..owners.len() {
            let wanted = namespace.waits_for(at);
            let Some((_, next)) = owners.iter().find(|(hash, _)| *hash == wanted) else {
                return Ok(None);
            };
            if *next == me {
                return Ok(Some(largest));
            }
            if namespace.is_dead(*next) {
                return Ok(None);
            }
            (at, largest) = (*next, largest.max(next.pack()));
        }
        Ok(None)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.since.is_some() {
            self.show(0);
        }
    }
}

/// A name as `waits_for` shows it; never 0.
fn wait_hash(key: &NameKey) -> u64 {
    crate::tag::fnv(crate::tag::FNV_OFFSET, key) | 1
}
