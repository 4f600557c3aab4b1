//! Removing a control object that nobody can enter.
//!
//! Two kinds of them are left in the world. One was never finished: its creator was killed before
//! the magic was written. One was finished and is not what it was: cut off, damaged, a copy, of an
//! older layout. Opening builds the first kind anew and refuses the second; neither goes by
//! itself, if nobody opens the namespace any more.
//!
//! **Under the election**, as all that removes control objects. A creator that lives and is
//! between making the object and giving it a size holds the election, or has yet to win it; then
//! it finds that the name means another object, or none, and starts over.
//!
//! **Nobody lives in it.** What the object says of its processes can't be believed. So every token
//! of life is tried: whoever is in the namespace holds the token of its slot, and nobody can take
//! out a new one without the election.
//!
//! **Its segments.** An object that was never finished has none. Where it was finished the list is
//! lost, and they are found by their names, in places that can be listed. A copy has none either:
//! what it lists belongs to the original.
//!
//! Killed anywhere, it leaves a control object that can be discarded again, or nothing: the object
//! goes last.

use core::time::Duration;

use super::{Error, Namespace, Platform};
use crate::control::header::MOST_PROCESSES;
use crate::control::{Found, validate};
use crate::error::ErrorKind;
use crate::provider::{Election, ObjectInfo, ProviderError, Root};

/// Segments that are found by name in one go.
const BATCH: usize = 32;

/// Which control objects [`Namespace::discard`] removes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Discard {
    /// Those that were never finished.
    Unfinished,
    /// Those besides that [`Namespace::open`] refuses with [`Error::Truncated`],
    /// [`Error::Corrupt`], [`Error::Copied`], or [`Error::Version`] of an older layout.
    Unusable,
}

/// What is to go.
enum Verdict {
    Nothing,
    Control,
    /// The control object, and the segments that have the namespace's name.
    All,
}

impl Namespace<'_> {
    /// Removes the control object behind `root` if it is one that nobody can enter, and what is
    /// left of its segments. Returns whether it did: an object that can be entered, one of another
    /// program or of a newer layout, and one that is not there, are left as they are.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] while processes live in it all the same; [`Error::Provider`], as when the
    /// election is held by another process for longer than `patience`.
    pub fn discard<R: Root>(
        root: &R,
        platform: Platform<'_>,
        patience: Duration,
        which: Discard,
    ) -> Result<bool, Error> {
        let mut election = match root.elect_existing(patience) {
            Ok(election) => election,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::Provider(error.failure())),
        };
        let verdict = judge(root, &mut election, platform, which)?;
        if matches!(verdict, Verdict::Nothing) {
            return Ok(false);
        }
        match living(platform)? {
            0 => {}
            processes => return Err(Error::InUse(processes)),
        }
        if matches!(verdict, Verdict::All) {
            clear_by_name(root, platform)?;
        }
        election.remove().map_err(|error| Error::Provider(error.failure()))?;
        Ok(true)
    }
}

fn judge<R: Root>(
    root: &R,
    election: &mut R::Election<'_>,
    platform: Platform<'_>,
    which: Discard,
) -> Result<Verdict, Error> {
    if election.size() == 0 {
        return Ok(Verdict::Control);
    }
    let mapping = election.map().map_err(|error| Error::Provider(error.failure()))?;
    // SAFETY: mapped just now; what is found is dropped here.
    let found =
        unsafe { validate(&mapping, election.id(), platform.env) }.map(|found| match found {
            Found::Valid(_) => Verdict::Nothing,
            Found::Unpublished => Verdict::Control,
        });
    // SAFETY: mapped by this root, and nothing refers to it any more.
    unsafe { root.unmap(mapping) };
    match found {
        Ok(verdict) => Ok(verdict),
        Err(error) if which == Discard::Unfinished => Err(error),
        Err(Error::Copied) => Ok(Verdict::Control),
        Err(Error::Truncated(..) | Error::Corrupt(_)) => Ok(Verdict::All),
        Err(Error::Version(theirs, ours)) if theirs < ours => Ok(Verdict::All),
        Err(_) => Ok(Verdict::Nothing),
    }
}

/// How many tokens of life are held.
fn living(platform: Platform<'_>) -> Result<u32, Error> {
    let mut held = 0;
    for slot in 0..MOST_PROCESSES {
        match platform.env.claim(slot) {
            Ok(()) => platform.env.release(slot),
            Err(failure) if failure.kind == ErrorKind::AlreadyExists => held += 1,
            Err(failure) => return Err(Error::Provider(failure)),
        }
    }
    Ok(held)
}

/// Removes the segments that have the namespace's name.
fn clear_by_name<R: Root>(root: &R, platform: Platform<'_>) -> Result<(), Error> {
    loop {
        // Nothing is removed while the platform lists.
        let mut batch = [ObjectInfo::default(); BATCH];
        let mut found = 0;
        let listed = root.enumerate(&mut |info| {
            if info.handle.is_some() && found < BATCH {
                batch[found] = *info;
                found += 1;
            }
        });
        match listed {
            Ok(()) => {}
            // Where objects can't be listed nobody can find them.
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
            Err(error) => return Err(Error::Provider(error.failure())),
        }
        for info in &batch[..found] {
            let Some(handle) = info.handle else { continue };
            match platform.provider.destroy(handle, info.id) {
                Ok(()) => {}
                Err(failure) => return Err(Error::Provider(failure)),
            }
        }
        if found < BATCH {
            return Ok(());
        }
    }
}
