//! A simulated process, as the root of a namespace: the control object and its election.

use core::time::Duration;
use std::sync::Arc;

use crate::{HeapError, HeapMachine, HeapProcess};
use dsm_core::error::ErrorKind;
use dsm_core::handle::ObjectId;
use dsm_core::provider::{Election, Mapping, ObjectInfo, Root};
use dsm_core::sync::Ordering;

/// The election of a simulated machine, held by one of its processes.
pub struct HeapElection<'a> {
    process: &'a HeapProcess,
    id: ObjectId,
}

impl HeapProcess {
    fn win(&self, patience: Duration) -> Result<(), HeapError> {
        let election = &self.machine.inner.election;
        let pid = self.pid as u32;
        let deadline = Deadline::after(patience);
        loop {
            if election.compare_exchange(0, pid, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Ok(());
            }
            if deadline.passed() || !self.is_alive() {
                return Err(HeapError::new(ErrorKind::TimedOut, "elect"));
            }
            pause();
        }
    }
}

#[cfg(any(loom, shuttle))]
struct Deadline;

#[cfg(any(loom, shuttle))]
impl Deadline {
    fn after(_patience: Duration) -> Self {
        Self
    }
    fn passed(&self) -> bool {
        false
    }
}

#[cfg(not(any(loom, shuttle)))]
struct Deadline(Option<std::time::Instant>);

#[cfg(not(any(loom, shuttle)))]
impl Deadline {
    fn after(patience: Duration) -> Self {
        Self(std::time::Instant::now().checked_add(patience))
    }
    fn passed(&self) -> bool {
        self.0.is_some_and(|end| std::time::Instant::now() >= end)
    }
}

fn pause() {
    #[cfg(any(loom, shuttle))]
    dsm_core::sync::yield_now();
    #[cfg(not(any(loom, shuttle)))]
    std::thread::sleep(Duration::from_micros(50));
}

// SAFETY: a mapping is the object's one allocation, aligned to a page, which lives as long as any
// mapping of it; the election is one word, taken by a compare-and-swap.
unsafe impl Root for HeapProcess {
    type Error = HeapError;
    type Election<'a> = HeapElection<'a>;

    fn elect(&self, patience: Duration) -> Result<HeapElection<'_>, HeapError> {
        self.call("elect")?;
        self.win(patience)?;
        let mut state = self.machine.state();
        let id = match &state.control {
            Some((_, id)) => *id,
            None => {
                let id = state.fresh_id();
                state.control = Some((None, id));
                id
            }
        };
        drop(state);
        Ok(HeapElection { process: self, id })
    }

    fn elect_existing(&self, patience: Duration) -> Result<HeapElection<'_>, HeapError> {
        self.call("elect_existing")?;
        self.win(patience)?;
        let id = self.machine.state().control.as_ref().map(|(_, id)| *id);
        let election = HeapElection { process: self, id: id.unwrap_or_default() };
        if id.is_none() {
            return Err(HeapError::new(ErrorKind::NotFound, "elect_existing"));
        }
        Ok(election)
    }

    fn peek(&self) -> Result<Mapping, HeapError> {
        self.call("peek")?;
        let control = self.machine.state().control.as_ref().map(|(memory, _)| memory.clone());
        match control {
            Some(Some(memory)) => Ok(self.map(&memory)),
            Some(None) => Err(HeapError::new(ErrorKind::Unfinished, "peek")),
            None => Err(HeapError::new(ErrorKind::NotFound, "peek")),
        }
    }

    unsafe fn unmap(&self, mapping: Mapping) {
        self.unmap_at(mapping.base);
    }

    fn enumerate(&self, found: &mut dyn FnMut(&ObjectInfo)) -> Result<(), HeapError> {
        self.call("enumerate")?;
        self.machine.objects().iter().for_each(found);
        Ok(())
    }
}

impl HeapElection<'_> {
    fn machine(&self) -> &HeapMachine {
        &self.process.machine
    }
}

// SAFETY: as above; a control object is allocated anew, with zeros, and no identity is drawn twice.
unsafe impl Election for HeapElection<'_> {
    type Error = HeapError;

    fn size(&self) -> usize {
        let state = self.machine().state();
        match &state.control {
            Some((Some(memory), id)) if *id == self.id => memory.len(),
            _ => 0,
        }
    }

    fn id(&self) -> ObjectId {
        self.id
    }

    fn create(&mut self, size: usize) -> Result<Mapping, HeapError> {
        self.process.call("create control")?;
        if size == 0 || size > isize::MAX as usize / 2 {
            return Err(HeapError::new(ErrorKind::InvalidSize, "create control"));
        }
        let old = match &mut self.machine().state().control {
            Some((memory, id)) if *id == self.id => memory.take(),
            _ => return Err(HeapError::new(ErrorKind::Foreign, "create control")),
        };
        drop(old);
        let memory = self.machine().allocate(size, size, 0)?;
        let mapping = self.process.map(&memory);
        self.machine().state().control = Some((Some(memory), self.id));
        Ok(mapping)
    }

    fn map(&mut self) -> Result<Mapping, HeapError> {
        self.process.call("map control")?;
        let memory = match &self.machine().state().control {
            Some((Some(memory), id)) if *id == self.id => Arc::clone(memory),
            _ => return Err(HeapError::new(ErrorKind::NotFound, "map control")),
        };
        Ok(self.process.map(&memory))
    }

    fn remove(&mut self) -> Result<(), HeapError> {
        self.process.call("remove control")?;
        let mut state = self.machine().state();
        match &state.control {
            Some((_, id)) if *id == self.id => {
                let gone = state.control.take();
                drop(state);
                drop(gone);
                Ok(())
            }
            Some(_) => Err(HeapError::new(ErrorKind::Foreign, "remove control")),
            None => Ok(()),
        }
    }
}

impl Drop for HeapElection<'_> {
    fn drop(&mut self) {
        let pid = self.process.pid as u32;
        // Lets go only of its own: a killed process has lost it already.
        let _ = self.machine().inner.election.compare_exchange(
            pid,
            0,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
    }
}
