//! One simulated process: everything that a namespace asks of its platform.
//!
//! All of a process that is not in the arena (hints, records of mappings, the random numbers it
//! drew) is ordinary memory: it is gone for others when the process is dead, since they never look
//! at it. Time is virtual: a wait takes no time but moves the process's clock on, so that "nobody
//! waits longer than" is a figure and not an experience. What waits too long for anything is
//! stopped, which is a failed image.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering as StdOrdering};
use std::time::Duration;

use dsm_core::env::{Clock, Entropy, Liveness, ProcessProof, ThreadProof, Wait};
use dsm_core::error::{ErrorKind, ProviderFailure};
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::namespace::Platform;
use dsm_core::provider::{Election, Mapping, ObjectInfo, RangeOwner, Root, SegmentProvider};
use dsm_core::sync::{AtomicU32, Ordering};

use crate::system::{self, Object, SystemError, failure};
use crate::{arena, stepper};

/// The longest that anybody may wait for anything, in virtual time.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Virtual nanoseconds that have passed by waiting.
static WAITED: AtomicU64 = AtomicU64::new(0);

/// Virtual time spent waiting, by everybody, since the start.
pub(crate) fn waited() -> Duration {
    Duration::from_nanos(WAITED.load(StdOrdering::Relaxed))
}

/// Starts the clock anew: what follows a death must not depend on what was before it.
pub(crate) fn reset_clock() {
    WAITED.store(0, StdOrdering::Relaxed);
}

fn wait(time: Duration) {
    let nanos = time.as_nanos().clamp(1, 1 << 62) as u64;
    let all = WAITED.fetch_add(nanos, StdOrdering::Relaxed).saturating_add(nanos);
    assert!(all < LONGEST_WAIT.as_nanos() as u64, "waits for ever");
}

/// A simulated process; plain data.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u64,
    /// Number of the thread that runs: as of a process, and the process's own for its first one.
    pub(crate) thread: AtomicU64,
    drawn: AtomicU64,
}

impl Process {
    /// Starts one. `pid` is small, and used once in a system.
    pub(crate) fn start(pid: u64) -> Self {
        system::start(pid);
        Self { pid, thread: AtomicU64::new(pid), drawn: AtomicU64::new(0) }
    }

    /// A process that the system has started, as its own code sees it.
    pub(crate) fn again(pid: u64) -> Self {
        Self { pid, thread: AtomicU64::new(pid), drawn: AtomicU64::new(1 << 32) }
    }

    pub(crate) fn platform(&self) -> Platform<'_> {
        Platform { provider: self, env: self }
    }
}

fn mapping(at: usize, len: usize) -> Mapping {
    Mapping { base: arena::at(at), len, token: 0 }
}

fn same(object: &system::Object, id: ObjectId, step: &'static str) -> Result<(), SystemError> {
    if id == ObjectId::default() || id == object.object_id() {
        return Ok(());
    }
    Err(failure(ErrorKind::Foreign, step))
}

// SAFETY: an object's bytes are a range of the arena that nothing else gets, ever.
unsafe impl SegmentProvider for Process {
    type Error = SystemError;

    fn page_size(&self) -> usize {
        arena::PAGE
    }

    fn create(
        &self,
        handle: SegmentHandle,
        size: usize,
        reserved: usize,
    ) -> Result<(Mapping, ObjectId), SystemError> {
        if size == 0 || size > arena::SIZE || reserved > size {
            return Err(failure(ErrorKind::InvalidSize, "create"));
        }
        stepper::change("an object is named", |system| {
            if system.find(handle).is_some() {
                return Err(failure(ErrorKind::AlreadyExists, "create"));
            }
            let object = system.fresh(handle.get());
            let free = system.objects.iter_mut().find(|object| object.id == 0);
            *free.ok_or(failure(ErrorKind::TooMany, "create"))? = object;
            Ok(())
        })?;
        stepper::change("an object is sized", |system| {
            let at = system.new_bytes(size).ok_or(failure(ErrorKind::NoSpace, "create"))?;
            let object = system.find(handle).ok_or(failure(ErrorKind::NotFound, "create"))?;
            (object.at, object.size) = (at, size);
            Ok((mapping(at, size), object.object_id()))
        })
    }

    fn attach(&self, handle: SegmentHandle, id: ObjectId) -> Result<Mapping, SystemError> {
        let found = system::look(|system| {
            system.objects.iter().find(|o| o.id != 0 && o.handle == handle.get()).copied()
        });
        let object = found.ok_or(failure(ErrorKind::NotFound, "attach"))?;
        same(&object, id, "attach")?;
        Ok(mapping(object.at, object.size))
    }

    fn reserve(
        &self,
        _: SegmentHandle,
        mapping: &Mapping,
        range: Range<usize>,
    ) -> Result<(), SystemError> {
        if range.end > mapping.len {
            return Err(failure(ErrorKind::InvalidSize, "reserve"));
        }
        Ok(())
    }

    unsafe fn detach(&self, _: Mapping) {}

    unsafe fn blank(&self, _: Mapping, _: RangeOwner) {}

    unsafe fn release_blanks(&self, _: RangeOwner) {}

    fn destroy(&self, handle: SegmentHandle, id: ObjectId) -> Result<(), SystemError> {
        let known = system::look(|system| {
            let mut named = system.objects.iter().filter(|object| object.id != 0);
            named.find(|object| object.handle == handle.get()).map(Object::removable)
        });
        let Some(removable) = known else { return Ok(()) };
        removable?;
        stepper::change("an object is removed", |system| {
            let Some(object) = system.find(handle) else { return Ok(()) };
            same(object, id, "destroy")?;
            object.id = 0;
            Ok(())
        })
    }

    fn stat(&self, handle: SegmentHandle) -> Result<ObjectInfo, SystemError> {
        let found = system::look(|system| {
            system.objects.iter().find(|o| o.id != 0 && o.handle == handle.get()).copied()
        });
        Ok(found.ok_or(failure(ErrorKind::NotFound, "stat"))?.info(Some(handle)))
    }
}

/// The election, held.
pub(crate) struct Held<'a> {
    process: &'a Process,
    id: u64,
}

impl Process {
    fn win(&self, patience: Duration) -> Result<(), SystemError> {
        let mut left = patience;
        while system::look(|system| system.election != 0) {
            let pause = Duration::from_millis(1);
            left = left.checked_sub(pause).ok_or(failure(ErrorKind::TimedOut, "elect"))?;
            wait(pause);
        }
        stepper::change("the election is won", |system| system.election = self.pid);
        Ok(())
    }
}

// SAFETY: the simulated system's objects are ranges of one mapping, each of whole pages, never
// given out twice; and there is one word for the election.
unsafe impl Root for Process {
    type Error = SystemError;
    type Election<'a> = Held<'a>;

    fn elect(&self, patience: Duration) -> Result<Held<'_>, SystemError> {
        self.win(patience)?;
        let mut id = system::look(|system| system.control.id);
        if id == 0 {
            id = stepper::change("the control object is named", |system| {
                system.control = system.fresh(0);
                system.control.id
            });
        }
        Ok(Held { process: self, id })
    }

    fn elect_existing(&self, patience: Duration) -> Result<Held<'_>, SystemError> {
        self.win(patience)?;
        let held = Held { process: self, id: system::look(|system| system.control.id) };
        if held.id == 0 { Err(failure(ErrorKind::NotFound, "elect")) } else { Ok(held) }
    }

    fn peek(&self) -> Result<Mapping, SystemError> {
        let control = system::look(|system| system.control);
        if control.id == 0 {
            return Err(failure(ErrorKind::NotFound, "peek"));
        }
        if control.size == 0 {
            return Err(failure(ErrorKind::Unfinished, "peek"));
        }
        Ok(mapping(control.at, control.size))
    }

    unsafe fn unmap(&self, _: Mapping) {}

    fn enumerate(&self, found: &mut dyn FnMut(&ObjectInfo)) -> Result<(), SystemError> {
        let (control, objects) = system::look(|system| (system.control, system.objects));
        if control.id != 0 {
            found(&control.info(None));
        }
        for object in objects.iter().filter(|object| object.id != 0) {
            found(&object.info(SegmentHandle::from_raw(object.handle)));
        }
        Ok(())
    }
}

impl Held<'_> {
    fn is_meant(&self) -> bool {
        system::look(|system| system.control.id == self.id)
    }
}

// SAFETY: as above; new bytes of the system are zero.
unsafe impl Election for Held<'_> {
    type Error = SystemError;

    fn size(&self) -> usize {
        if self.is_meant() { system::look(|system| system.control.size) } else { 0 }
    }

    fn id(&self) -> ObjectId {
        ObjectId { device: 1, object: self.id }
    }

    fn create(&mut self, size: usize) -> Result<Mapping, SystemError> {
        if !self.is_meant() {
            return Err(failure(ErrorKind::Foreign, "create control"));
        }
        stepper::change("the control object is sized", |system| {
            let at = system.bytes(size).ok_or(failure(ErrorKind::NoSpace, "create control"))?;
            (system.control.at, system.control.size) = (at, size);
            Ok(mapping(at, size))
        })
    }

    fn map(&mut self) -> Result<Mapping, SystemError> {
        self.process.peek()
    }

    fn remove(&mut self) -> Result<(), SystemError> {
        system::look(|system| system.control.removable())?;
        match system::look(|system| system.control.id) {
            0 => Ok(()),
            id if id == self.id => {
                stepper::change("the control object is removed", |system| system.control.id = 0);
                Ok(())
            }
            _ => Err(failure(ErrorKind::Foreign, "remove control")),
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if system::look(|system| system.election == self.process.pid) {
            stepper::change("the election is let go", |system| system.election = 0);
        }
    }
}

impl Wait for Process {
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Duration) {
        if word.load(Ordering::Acquire) == expected {
            wait(timeout);
        }
    }

    fn wake_all(&self, _: &AtomicU32) {}
}

// SAFETY: who is dead is killed, by the tool, which runs it no more; each token is one process's.
unsafe impl Liveness for Process {
    fn claim(&self, slot: u32) -> Result<(), ProviderFailure> {
        let holder = system::look(|system| system.tokens.get(slot as usize).copied());
        match holder {
            Some(0) => {
                stepper::change("a token is taken", |system| {
                    system.tokens[slot as usize] = self.pid;
                });
                Ok(())
            }
            Some(_) => Err(ProviderFailure::new(ErrorKind::AlreadyExists, "claim")),
            // A slot that no namespace here has: nobody holds its token, and nobody is to know
            // that this process does.
            None => Ok(()),
        }
    }

    fn release(&self, slot: u32) {
        if system::look(|system| system.tokens.get(slot as usize) == Some(&self.pid)) {
            stepper::change("a token is given back", |system| system.tokens[slot as usize] = 0);
        }
    }

    fn process_proof(&self) -> ProcessProof {
        ProcessProof { pid: self.pid, start_time: self.pid, pid_namespace: 1, user: 0 }
    }

    fn thread_proof(&self) -> ThreadProof {
        let tid = self.thread.load(StdOrdering::Relaxed);
        ThreadProof { tid, start_time: tid }
    }

    fn process_is_dead(&self, slot: u32, proof: &ProcessProof) -> bool {
        let holder = system::look(|system| system.tokens.get(slot as usize).copied());
        !system::is_alive(proof.pid) || holder != Some(proof.pid)
    }

    fn thread_is_dead(&self, _: &ProcessProof, proof: &ThreadProof) -> bool {
        !system::is_alive(proof.tid)
    }
}

impl Clock for Process {
    fn now(&self) -> Duration {
        waited()
    }
}

impl Entropy for Process {
    fn next_u64(&self) -> u64 {
        let drawn = self.drawn.fetch_add(1, StdOrdering::Relaxed);
        let mut z = (self.pid << 40 | drawn).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
