//! A simulated machine over the heap: the platform of tests, models and fuzzers.
//!
//! [`HeapMachine`] is what an operating system is to a namespace: named objects, one control
//! object with its election lock, tokens of life, and the knowledge of who lives.
//! [`HeapProcess`] is one simulated process on it and implements every trait a namespace asks of
//! its platform. All processes share one address space, so that a test can hold several of them in
//! one function, kill any without unwinding it ([`HeapProcess::kill`]), and look at what is left.
//!
//! # Structure
//!
//! The machine's table of objects is ordinary process memory behind one mutex; nothing in it is
//! shared memory. The *bytes* of an object are a reference-counted allocation: the name holds one
//! count, each mapping another, so that an unlinked object lives until it is unmapped, as on a
//! real system. A killed process keeps its counts until its [`HeapProcess`] is dropped: a test
//! thread that still runs inside it touches memory that is there. What counts against
//! [`HeapMachine::set_capacity`] is what is reserved of each live allocation.
//!
//! # Faults
//!
//! Allocations can fail on demand ([`HeapMachine::fail_allocation`]), run out
//! ([`HeapMachine::set_capacity`]), or come filled with a byte ([`HeapMachine::fill_new`]).
//! [`HeapMachine::on_call`] runs a closure before every call of the platform; together with
//! [`HeapMachine::snapshot`], a deep copy, it shows what a kill at that point would leave: take
//! the copy, kill the caller in it, and open the namespace from a new process of the copy.
//!
//! # Limits
//!
//! Two mappings of one object have the same address here, so that a stored address is not caught;
//! [`blank`](dsm_core::provider::SegmentProvider::blank) leaves the bytes as they are; memory that
//! was never reserved can be touched.

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

use core::ptr::NonNull;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
#[cfg(not(shuttle))]
use std::sync::Condvar;
use std::sync::atomic::{AtomicU64 as StdU64, Ordering as StdOrdering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use dsm_core::error::{ErrorKind, ProviderFailure};
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::{ObjectInfo, ProviderError};
use dsm_core::sync::{AtomicU32, Ordering};

mod env;
mod memory;
mod process;
mod root;

use memory::Memory;
pub use process::HeapProcess;
pub use root::HeapElection;

/// Records that a process has for segments of its namespace, unless the machine says otherwise.
const RECORDS: usize = if cfg!(loom) { 4 } else { 1024 };

/// Granularity of mapping and reservation in bytes.
pub const PAGE: usize = 4096;

/// A failure on the simulated machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HeapError(pub ProviderFailure);

impl HeapError {
    fn new(kind: ErrorKind, step: &'static str) -> Self {
        Self(ProviderFailure::new(kind, step))
    }
}

impl core::fmt::Display for HeapError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

dsm_core::debug_is_display!(HeapError);
impl core::error::Error for HeapError {}

impl ProviderError for HeapError {
    fn kind(&self) -> ErrorKind {
        self.0.kind
    }
    fn failure(&self) -> ProviderFailure {
        self.0
    }
}

/// What runs before each call of the platform; see [`HeapMachine::on_call`].
pub type CallHook = Arc<dyn Fn(&HeapMachine, &'static str) + Send + Sync>;

/// A named object: its bytes and what the machine says of it.
#[derive(Clone)]
struct Object {
    memory: Arc<Memory>,
    id: ObjectId,
}

/// What the machine knows; behind its mutex.
#[derive(Default)]
struct State {
    objects: BTreeMap<u64, Object>,
    /// The control object; `None` inside while it exists at size zero.
    control: Option<(Option<Arc<Memory>>, ObjectId)>,
    living: BTreeSet<u64>,
    ended_threads: BTreeSet<u64>,
    /// Token of life of each process slot: the process that holds it.
    tokens: BTreeMap<u32, u64>,
    next_pid: u64,
    next_object: u64,
    seed: u64,
    capacity: Option<u64>,
    fill: u8,
    /// Records of segments that a new process has.
    records: usize,
    /// Bytes that an object may have.
    longest: Option<usize>,
    /// Allocations until one fails, and how.
    fault: Option<(u32, ErrorKind)>,
    /// Bytes of the allocation that failed last, on demand.
    refused: Option<(u64, ErrorKind)>,
    fail_attach: bool,
    fail_destroy: bool,
    /// Values the entropy source gives before its own.
    entropy: VecDeque<u64>,
    hook: Option<CallHook>,
}

impl State {
    fn fresh_id(&mut self) -> ObjectId {
        self.next_object += 1;
        ObjectId { device: 1, object: self.next_object }
    }
}

struct Inner {
    state: Mutex<State>,
    /// Bytes reserved in live allocations.
    used: Arc<StdU64>,
    /// The process that holds the election; 0 if none does. An atomic of the model, so that loom
    /// sees what the election orders.
    election: AtomicU32,
    /// What waiting threads sleep on.
    #[cfg(not(shuttle))]
    waiters: Mutex<()>,
    #[cfg(not(shuttle))]
    wakes: Condvar,
}

/// A simulated machine. Cheap to clone: clones are the same machine.
#[derive(Clone)]
pub struct HeapMachine {
    inner: Arc<Inner>,
}

impl Default for HeapMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl HeapMachine {
    /// A machine with nothing on it and the default seed.
    #[must_use]
    pub fn new() -> Self {
        Self::with_seed(0x5eed)
    }

    /// A machine whose entropy is a function of `seed` alone.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self::from_state(State { seed, records: RECORDS, ..State::default() }, Arc::default())
    }

    fn from_state(state: State, used: Arc<StdU64>) -> Self {
        #[cfg(dsm_planted)]
        select_planted_bug();
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                used,
                election: AtomicU32::new(0),
                #[cfg(not(shuttle))]
                waiters: Mutex::new(()),
                #[cfg(not(shuttle))]
                wakes: Condvar::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process.
    #[must_use]
    pub fn process(&self) -> HeapProcess {
        let (pid, records) = {
            let mut state = self.state();
            state.next_pid += 1;
            let pid = state.next_pid;
            state.living.insert(pid);
            (pid, state.records)
        };
        HeapProcess::new(self.clone(), pid, records)
    }

    /// A deep copy of memory, names, tokens and the living, as a machine of its own. The copied
    /// processes live on as far as anyone can tell, but run nothing: kill those that should be
    /// dead. Faults and hooks are not copied. Nothing may write to the objects meanwhile.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let used = Arc::default();
        let state = self.state();
        let copy = |memory: &Arc<Memory>| Arc::new(memory.copy(&used));
        let objects = state
            .objects
            .iter()
            .map(|(handle, object)| {
                (*handle, Object { memory: copy(&object.memory), id: object.id })
            })
            .collect();
        let control = state.control.as_ref().map(|(memory, id)| (memory.as_ref().map(copy), *id));
        let state = State {
            objects,
            control,
            living: state.living.clone(),
            ended_threads: state.ended_threads.clone(),
            tokens: state.tokens.clone(),
            next_pid: state.next_pid,
            next_object: state.next_object,
            seed: state.seed.wrapping_add(1),
            records: state.records,
            ..State::default()
        };
        let machine = Self::from_state(state, used);
        let holder = self.inner.election.load(Ordering::Acquire);
        machine.inner.election.store(holder, Ordering::Release);
        machine
    }

    /// Declares a process dead: its tokens and its election are let go of, nothing is cleaned.
    pub fn kill_pid(&self, pid: u64) {
        let mut state = self.state();
        state.living.remove(&pid);
        state.tokens.retain(|_, holder| *holder != pid);
        drop(state);
        self.lose_election(pid);
    }

    /// Takes a process's tokens of life, and its election, from it, as a program does that closes
    /// all its descriptors: from then on it is dead for the others, and goes on.
    pub fn lose_tokens(&self, pid: u64) {
        self.state().tokens.retain(|_, holder| *holder != pid);
        self.lose_election(pid);
    }

    fn lose_election(&self, pid: u64) {
        let _ = self.inner.election.compare_exchange(
            pid as u32,
            0,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        #[cfg(not(shuttle))]
        self.inner.wakes.notify_all();
    }

    /// Kills every process of the machine.
    pub fn kill_all(&self) {
        let living = self.state().living.clone();
        living.into_iter().for_each(|pid| self.kill_pid(pid));
    }

    /// The process that holds the election.
    #[must_use]
    pub fn elector(&self) -> Option<u64> {
        let pid = self.inner.election.load(Ordering::Acquire);
        (pid != 0).then_some(u64::from(pid))
    }

    /// Declares a thread ended, as named by [`ThreadProof`](dsm_core::env::ThreadProof)`::tid`.
    pub fn end_thread(&self, tid: u64) {
        self.state().ended_threads.insert(tid);
    }

    /// How many segments the namespaces of new processes may have; 1024 if nothing is said. Opening
    /// and leaving look at as many records, which is most of what they do where there are few
    /// segments.
    pub fn set_most_segments(&self, segments: usize) {
        self.state().records = segments;
    }

    /// Bytes that may be reserved in all; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes that an object may have, as where files have a limit; `None` for no limit.
    pub fn set_longest(&self, bytes: Option<usize>) {
        self.state().longest = bytes;
    }

    /// Makes an allocation fail once: the next one if `after` is 0, and so on. A create and a
    /// reserve each count as one; so does one that is tried again at once, by who has swept the
    /// dead in between.
    pub fn fail_allocation(&self, after: u32, kind: ErrorKind) {
        let mut state = self.state();
        state.fault = Some((after, kind));
        state.refused = None;
    }

    /// Makes the next mapping of an existing segment fail once.
    pub fn fail_next_attach(&self) {
        self.state().fail_attach = true;
    }

    /// Makes the next removal of a segment's object fail once.
    pub fn fail_next_destroy(&self) {
        self.state().fail_destroy = true;
    }

    /// Fills the bytes of new segments (not of control objects, which are zero by contract), each
    /// page when it is reserved.
    pub fn fill_new(&self, byte: u8) {
        self.state().fill = byte;
    }

    /// Values that the entropy sources give next, before their own.
    pub fn force_entropy(&self, values: &[u64]) {
        self.state().entropy.extend(values);
    }

    /// Runs `hook` before every call of the platform, naming it; `None` to stop.
    pub fn on_call(&self, hook: Option<CallHook>) {
        self.state().hook = hook;
    }

    /// Bytes reserved by all objects that have a name or a mapping.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.inner.used.load(StdOrdering::Relaxed)
    }

    /// What names there are, the control object included (with no handle).
    #[must_use]
    pub fn objects(&self) -> Vec<ObjectInfo> {
        let state = self.state();
        let control = state.control.as_ref().map(|(memory, id)| match memory {
            Some(memory) => memory.info(None, *id),
            None => ObjectInfo { id: *id, mode: 0o600, ..ObjectInfo::default() },
        });
        let segments = state
            .objects
            .iter()
            .map(|(raw, object)| object.memory.info(SegmentHandle::from_raw(*raw), object.id));
        control.into_iter().chain(segments).collect()
    }

    /// The bytes of the control object, to be damaged or looked at; `None` if there is none.
    #[must_use]
    pub fn control_bytes(&self) -> Option<(NonNull<u8>, usize)> {
        let state = self.state();
        let memory = state.control.as_ref()?.0.as_ref()?;
        Some((memory.base(), memory.len()))
    }

    /// Puts other bytes in the control object's place. With `keep_identity` it stays the same
    /// object, else it is a new one, as when a file is copied or its name is taken by another.
    pub fn replace_control(&self, bytes: &[u8], keep_identity: bool) {
        let memory = (!bytes.is_empty()).then(|| {
            let memory = Memory::new(bytes.len(), bytes.len(), 0, &self.inner.used);
            memory.write(bytes);
            Arc::new(memory)
        });
        let mut state = self.state();
        let id = match &state.control {
            Some((_, id)) if keep_identity => *id,
            _ => state.fresh_id(),
        };
        state.control = Some((memory, id));
    }

    /// Removes the control object's name, as a hand from outside might.
    pub fn unlink_control(&self) {
        self.state().control = None;
    }

    /// Removes a segment's name, as a hand from outside might.
    pub fn unlink(&self, handle: SegmentHandle) -> bool {
        self.state().objects.remove(&handle.get()).is_some()
    }

    fn called(&self, what: &'static str) {
        let hook = self.state().hook.clone();
        if let Some(hook) = hook {
            hook(self, what);
        }
    }

    /// New bytes, or the fault that was asked for, or no room.
    fn allocate(&self, size: usize, reserved: usize, fill: u8) -> Result<Arc<Memory>, HeapError> {
        self.admit(Memory::pages(reserved) as u64)?;
        Ok(Arc::new(Memory::new(size, reserved, fill, &self.inner.used)))
    }

    /// Whether so many more bytes may be reserved.
    fn admit(&self, bytes: u64) -> Result<(), HeapError> {
        let mut state = self.state();
        let total = state.capacity.unwrap_or(u64::MAX);
        let available = total.saturating_sub(self.used());
        let full = |kind| {
            HeapError(ProviderFailure {
                requested: bytes,
                available,
                total,
                ..ProviderFailure::new(kind, "allocate")
            })
        };
        if let Some((refused, kind)) = state.refused.take() {
            if refused == bytes {
                return Err(full(kind));
            }
        }
        if let Some((left, kind)) = state.fault {
            state.fault = left.checked_sub(1).map(|left| (left, kind));
            if left == 0 {
                state.refused = Some((bytes, kind));
                return Err(full(kind));
            }
        }
        if bytes > available {
            return Err(full(ErrorKind::NoSpace));
        }
        Ok(())
    }
}

/// Selects the planted bug that the environment names: what a test does that sets up a world
/// without a machine, which does it by itself.
///
/// # Panics
///
/// If there is no such bug.
#[cfg(dsm_planted)]
pub fn select_planted_bug() {
    let name = std::env::var(dsm_core::planted::VARIABLE).unwrap_or_default();
    assert!(dsm_core::planted::select(&name), "there is no planted bug {name}");
}
