//! What is in a namespace, and how it goes again: listing, removal, reaping.
//!
//! **Removal** goes through the state REMOVING(id), so that whoever is killed in between leaves
//! something that the next one completes: REMOVING, unpin, delete the entry. The change count is
//! raised right after REMOVING is stored: who looked the name up before that may go on with what
//! it found, who does so after it finds REMOVING and waits until the entry is gone.

use std::sync::PoisonError;

use dsm_core::handle::SegmentHandle;
use dsm_core::participant::Peers;
use dsm_core::sync::Ordering;

use crate::area::AreaObject;
use crate::entry::State;
use crate::error::context::Context;
use crate::error::kind::ErrorKind;
use crate::error::{Description, Error, Kind};
use crate::name;
use crate::names::{Seen, Verdict};
use crate::registry::Registry;

/// A name in a namespace, as [`Registry::list`] or [`RegistryInspector::names`] found it.
///
/// [`RegistryInspector::names`]: crate::RegistryInspector::names
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Listing {
    /// The name.
    pub name: String,
    /// What it stands for.
    pub kind: Kind,
    /// Types and sizes it was created with.
    pub description: Description,
    /// Bytes that it takes: of a value, or of all segments of an area or table.
    pub size: u64,
    /// Bytes of that which are in use; seen from outside, those backed by memory.
    pub used: u64,
    /// Processes that have it attached. Dead ones count until they are reaped.
    pub attached: u32,
    /// Process id of the one that is initialising it at this moment, if any.
    pub initialising: Option<u64>,
}

impl Registry {
    /// All names, sorted. Sizes of areas and tables are summed up in shared memory: linear in what
    /// is in use. An area or table whose memory somebody has removed from outside has the size 0.
    ///
    /// # Errors
    ///
    /// As any call that has to map what it looks at; see [`Error`].
    #[doc(alias = "pg_dsm_registry_allocations")]
    pub fn list(&self) -> Result<Vec<Listing>, Error> {
        let home = &self.shared.home;
        let mut seen = Vec::new();
        home.names().scan(home, &mut |key, what| seen.push((name::text(key), what)))?;
        seen.sort_by(|a, b| a.0.cmp(&b.0));
        seen.into_iter().filter_map(|(name, seen)| self.listing(name, &seen).transpose()).collect()
    }

    /// `None` if it is gone by now.
    fn listing(&self, name: String, seen: &Seen) -> Result<Option<Listing>, Error> {
        let home = &self.shared.home;
        let description =
            seen.shape.describe().ok_or_else(|| home.damaged("an entry of unknown kind"))?;
        let handle = SegmentHandle::from_raw(seen.handle);
        let attached = handle.and_then(|handle| home.namespace().attached_processes(handle));
        let (mut size, mut used) = (description.value_size, description.value_size);
        let initialising = match seen.state {
            State::Initialising(id) => Some(home.process_of(id)),
            State::Ready => None,
            State::Removing(_) => return Ok(None),
        };
        if matches!(description.kind, Kind::Area | Kind::Hash) {
            (size, used) = (0, 0);
            if initialising.is_none() {
                let label = description.kind.label(&name);
                let area = home
                    .areas()
                    .get_or_attach(seen.handle, || AreaObject::attach(home, &label, seen.handle));
                let stats = area.and_then(|area| {
                    let stats = |area: &AreaObject| area.core().stats();
                    area.map(|area| stats(&area).of(home, &label)).transpose()
                });
                match stats {
                    Ok(Some(stats)) => (size, used) = (stats.total, stats.used),
                    Ok(None) => return Ok(None),
                    // What is left of it is a name, to be removed.
                    Err(error) if matches!(error.kind(), ErrorKind::MemoryRemoved { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let kind = description.kind;
        let attached = attached.unwrap_or(0);
        Ok(Some(Listing { name, kind, description, size, used, attached, initialising }))
    }

    /// Removes a name, and what it stands for. Refused while other processes have it attached.
    ///
    /// Handles that this process has stay good until they are dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`]; [`ErrorKind::InUse`]; [`ErrorKind::Initialising`] while it is being
    /// initialised, [`ErrorKind::OwnInitialiser`] if that is what this thread does;
    /// [`ErrorKind::InvalidName`].
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        self.take_away(name, false)
    }

    /// As [`remove`](Self::remove), also while others have it attached: they keep what they have
    /// until they let go of it, and find something new under the name when they ask again.
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove), but for [`ErrorKind::InUse`].
    pub fn remove_forced(&self, name: &str) -> Result<(), Error> {
        self.take_away(name, true)
    }

    fn take_away(&self, name: &str, force: bool) -> Result<(), Error> {
        let home = &self.shared.home;
        let key = name::key(name)?;
        let not_found = || ErrorKind::NotFound { name: name.into() };
        let me = home.participant()?.id().ok_or(ErrorKind::Forked)?;
        let seen = home.names().look(home, &key)?.ok_or_else(not_found)?;
        if self.others(seen.handle) > 0 {
            // The dead don't count.
            home.reap().of(home, "the reaping of the dead")?;
        }
        let handle = home.names().modify(home, &key, |entry| {
            match entry.state() {
                Some(State::Initialising(id)) if id == me => {
                    return Err(ErrorKind::OwnInitialiser { name: name.into() }.into());
                }
                Some(State::Initialising(id)) if !home.namespace().is_dead(id) => {
                    let process = home.process_of(id);
                    return Err(ErrorKind::Initialising { name: name.into(), process }.into());
                }
                Some(State::Removing(id)) if !home.namespace().is_dead(id) => {
                    return Err(not_found().into());
                }
                _ => {}
            }
            let others = self.others(entry.handle());
            if others > 0 && !force {
                return Err(ErrorKind::InUse { name: name.into(), processes: others }.into());
            }
            entry.set_state(State::Removing(me));
            Ok(Verdict::Keep(entry.handle()))
        })?;
        let handle = handle.ok_or_else(not_found)?;
        home.header().changes.fetch_add(1, Ordering::AcqRel);
        let cached = {
            let mut cache = self.shared.cache.write().unwrap_or_else(PoisonError::into_inner);
            cache.remove(name)
        };
        drop(cached);
        home.release_object(handle)?;
        home.names().modify(home, &key, |entry| {
            let mine = entry.state() == Some(State::Removing(me));
            Ok(if mine { Verdict::Delete(()) } else { Verdict::Keep(()) })
        })?;
        home.wake();
        Ok(())
    }

    /// Other processes that have the segment or area attached.
    fn others(&self, handle: u64) -> u32 {
        let home = &self.shared.home;
        let Some(handle) = SegmentHandle::from_raw(handle) else { return 0 };
        let all = home.namespace().attached_processes(handle).unwrap_or(0);
        let own = u32::from(home.namespace().find_mapping(handle).is_some());
        all.saturating_sub(own)
    }

    /// Sweeps what dead processes and threads left behind: their locks, their attachments, their
    /// slots. Returns how many participants were freed.
    ///
    /// Nobody has to call it to get on: a lock of the dead is taken over by who wants it, and who
    /// lacks a slot or memory sweeps first. But what only the dead had attached stays in memory
    /// until then, or until some process opens or leaves the namespace. Who lives long among others
    /// that die calls this now and then, or keeps a [reaper](Self::spawn_reaper).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NamespaceUnlinked`], after the sweep; [`ErrorKind::Namespace`] if an object
    /// could not be removed; the others are.
    pub fn reap(&self) -> Result<u32, Error> {
        let home = &self.shared.home;
        home.check_fork()?;
        let freed = home.reap().of(home, "the reaping of the dead")?;
        home.confirm_name()?;
        Ok(freed)
    }

    /// Decides anew whether the namespace outlives its last process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`], [`ErrorKind::DeclaredDead`].
    pub fn set_persistent(&self, persistent: bool) -> Result<(), Error> {
        let home = &self.shared.home;
        home.namespace().set_persistent(persistent).of(home, "persistence")
    }

    /// Whether the namespace outlives its last process.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.shared.home.namespace().is_persistent()
    }
}
