//! A simulated operating system whose tables lie in the arena.
//!
//! What it knows (objects by handle, the control object, who lives, who holds which token of life
//! and the election) is plain words in shared memory, so that an image has its own copy. Nothing
//! else runs while they are changed. What a process changes is a step of its own
//! (`stepper::change`).
//!
//! A dead process is one whose bit is gone: its tokens and its election go with it, nothing else
//! is cleaned.

use dsm_core::error::{ErrorKind, ProviderFailure};
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::{ObjectInfo, ProviderError};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::arena;

pub(crate) const OBJECTS: usize = 128;
pub(crate) const TOKENS: usize = 32;
const PROCESSES: usize = 64;

/// An object: bytes under a name.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Object {
    /// 0 for none.
    pub(crate) id: u64,
    pub(crate) handle: u64,
    /// Offset in the arena.
    pub(crate) at: usize,
    /// Bytes; 0 until the object got its size.
    pub(crate) size: usize,
    /// 1 if it is for another user to remove than the one whose processes these are.
    foreign: u64,
}

impl Object {
    /// Refuses its removal, if that is for another user.
    pub(crate) fn removable(&self) -> Result<(), SystemError> {
        match self.foreign {
            0 => Ok(()),
            _ => Err(failure(ErrorKind::PermissionDenied, "unlink")),
        }
    }

    pub(crate) fn object_id(&self) -> ObjectId {
        ObjectId { device: 1, object: self.id }
    }

    pub(crate) fn info(&self, handle: Option<SegmentHandle>) -> ObjectInfo {
        let (size, id) = (self.size as u64, self.object_id());
        ObjectInfo { handle, size, reserved: size, owner: 0, mode: 0o600, id }
    }
}

/// The tables. Zeros are an empty system.
#[repr(C)]
pub(crate) struct System {
    /// Bytes of the arena handed out, beyond the tables.
    taken: usize,
    last_id: u64,
    pub(crate) control: Object,
    pub(crate) objects: [Object; OBJECTS],
    /// By process slot: the process that holds its token; 0 for none.
    pub(crate) tokens: [u64; TOKENS],
    living: [bool; PROCESSES],
    /// The holder's process; 0 for none.
    pub(crate) election: u64,
}

/// Changes the tables.
///
/// The one thread there is calls this, and keeps no result across a call of its own.
pub(crate) fn tables<T>(work: impl FnOnce(&mut System) -> T) -> T {
    let at = arena::base().cast::<System>();
    // SAFETY: the arena starts with the tables; see above for who else has a reference: nobody.
    work(unsafe { &mut *at.as_ptr() })
}

/// Looks at the tables.
pub(crate) fn look<T>(work: impl FnOnce(&System) -> T) -> T {
    let at = arena::base().cast::<System>();
    // SAFETY: as in `tables`; nothing is stored, so that this works while stores are refused.
    work(unsafe { &*at.as_ptr() })
}

/// A failure of the simulated system.
#[derive(Clone, Copy)]
pub(crate) struct SystemError(ProviderFailure);

impl std::fmt::Display for SystemError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

dsm_core::debug_is_display!(SystemError);
impl std::error::Error for SystemError {}

impl ProviderError for SystemError {
    fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    fn failure(&self) -> ProviderFailure {
        self.0
    }
}

pub(crate) fn failure(kind: ErrorKind, step: &'static str) -> SystemError {
    SystemError(ProviderFailure::new(kind, step))
}

impl System {
    /// A name for a new object, which has no size yet.
    pub(crate) fn fresh(&mut self, handle: u64) -> Object {
        self.last_id += 1;
        Object { id: self.last_id, handle, at: 0, size: 0, foreign: 0 }
    }

    /// Bytes for a segment, as new ones come: see [`fill_new`].
    pub(crate) fn new_bytes(&mut self, size: usize) -> Option<usize> {
        let at = self.bytes(size)?;
        match FILL.load(Ordering::Relaxed) {
            0 => {}
            byte => arena::fill(at, size, byte),
        }
        Some(at)
    }

    /// Bytes for an object; zeros.
    pub(crate) fn bytes(&mut self, size: usize) -> Option<usize> {
        let first = self.taken.max(size_of::<Self>().next_multiple_of(arena::PAGE));
        let end = first.checked_add(size)?.checked_next_multiple_of(arena::PAGE)?;
        if end > arena::SIZE {
            return None;
        }
        self.taken = end;
        Some(first)
    }

    pub(crate) fn find(&mut self, handle: SegmentHandle) -> Option<&mut Object> {
        self.objects.iter_mut().find(|o| o.id != 0 && o.handle == handle.get())
    }
}

/// What new segments are full of. A provider need not hand out zeros; the control object alone is
/// zero by contract.
static FILL: AtomicU8 = AtomicU8::new(0);

/// Says what new segments are full of from now on.
pub(crate) fn fill_new(byte: u8) {
    FILL.store(byte, Ordering::Relaxed);
}

/// Refuses, or allows, stores to shared memory.
pub(crate) fn protect(refuse: bool) {
    let used = look(|system| system.taken).max(size_of::<System>());
    arena::protect(used.next_multiple_of(arena::PAGE), refuse);
}

/// Makes the control object, and every other one of the rest, another user's; or nothing any more.
pub(crate) fn share(foreign: bool) {
    tables(|system| {
        let foreign = u64::from(foreign);
        system.control.foreign = foreign;
        system.objects.iter_mut().step_by(2).for_each(|object| object.foreign = foreign);
    });
}

/// The words of the tables, and where in the arena they lie.
pub(crate) fn words() -> impl Iterator<Item = (u64, u64)> {
    let base = arena::base().addr().get();
    let offsets = (0..size_of::<System>()).step_by(8);
    offsets.map(move |offset| (offset as u64, arena::word(base + offset)))
}

/// Starts a process.
pub(crate) fn start(process: u64) {
    tables(|system| system.living[process as usize] = true);
}

/// Kills a process.
pub(crate) fn kill(process: u64) {
    tables(|system| {
        system.living[process as usize] = false;
        system.tokens.iter_mut().filter(|holder| **holder == process).for_each(|t| *t = 0);
        if system.election == process {
            system.election = 0;
        }
    });
}

pub(crate) fn is_alive(process: u64) -> bool {
    look(|system| system.living.get(process as usize).copied().unwrap_or(false))
}

/// All processes that are alive.
pub(crate) fn living() -> Vec<u64> {
    (1..PROCESSES as u64).filter(|process| is_alive(*process)).collect()
}

/// The objects there are: whether there is a control object, and the handles of the others.
pub(crate) fn objects() -> (bool, Vec<u64>) {
    look(|system| {
        let named = system.objects.iter().filter(|o| o.id != 0).map(|o| o.handle).collect();
        (system.control.id != 0, named)
    })
}
