//! Stops a victim after each of its stores to shared memory.
//!
//! While the stepper is armed the arena refuses stores. An instruction that stores to it faults;
//! the handler remembers what is there, allows stores, sets the processor's trap flag and returns,
//! so that this one instruction is executed and traps. That handler compares, has an image taken if
//! anything changed, and refuses stores again. Instructions that do not touch shared memory run at
//! full speed: a kill between two of them leaves the same image as a kill at the store before.
//!
//! A call of the (simulated) system that changes something is one step for whoever makes it, or two
//! where a real system would need two (an object exists under its name before it has a size): it
//! suspends the stepper, and reports its effects itself.
//!
//! What is done at a step is not the stepper's business: it tells the [`Watcher`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::arena;
use crate::system::{self, System};

/// Words that are compared from the faulting address on: more than any instruction stores.
const WINDOW: usize = 32;
/// The processor's trap flag.
const TRAP_FLAG: i64 = 0x100;
/// `si_code` of a trap after one instruction.
const TRAP_TRACE: i32 = 2;
/// `si_code` of a trap for which the processor gave no cause: under a hypervisor, that of a single
/// step is lost now and then. (A breakpoint instruction has another.)
const TRAP_BRKPT: i32 = 1;

static ARMED: AtomicBool = AtomicBool::new(false);
static WINDOW_AT: AtomicUsize = AtomicUsize::new(0);
static BEFORE: [AtomicU64; WINDOW] = [const { AtomicU64::new(0) }; WINDOW];
/// A digest of how all of the arena differs from what it was when exploring began, whoever changed
/// it and in which order: equal images have equal digests.
static DIGEST: AtomicU64 = AtomicU64::new(0);
/// Instructions that stored to shared memory.
static STORES: AtomicU64 = AtomicU64::new(0);

/// Who is told of each step.
pub(crate) struct Watcher {
    /// Shared memory was changed: by what, if it has a name, and the digest of what it is now.
    pub(crate) point: fn(Option<&'static str>, u64),
    /// The process had a fault of its own.
    pub(crate) crashed: fn(&str) -> !,
}

/// Without one, stores are only counted.
static WATCHER: OnceLock<Watcher> = OnceLock::new();

/// Says who is told from now on; once in a process.
pub(crate) fn watch(watcher: Watcher) {
    assert!(WATCHER.set(watcher).is_ok(), "somebody watches already");
}

fn point(kind: Option<&'static str>, digest: u64) {
    if let Some(watcher) = WATCHER.get() {
        (watcher.point)(kind, digest);
    }
}

fn crashed(how: &str) -> ! {
    if let Some(watcher) = WATCHER.get() {
        (watcher.crashed)(how)
    }
    // SAFETY: ends the process without running what an ordinary end would. It has failed.
    unsafe { libc::_exit(1) }
}

/// Instructions that have stored to shared memory under the stepper.
pub(crate) fn stores() -> u64 {
    STORES.load(Ordering::Relaxed)
}

fn digest() -> u64 {
    DIGEST.load(Ordering::Relaxed)
}

/// Changes the system's tables and keeps the digest right.
pub(crate) fn noting<T>(work: impl FnOnce() -> T) -> T {
    let before = system::words().fold(0, |sum, (at, word)| sum ^ mix(at, word));
    let result = work();
    let after = system::words().fold(0, |sum, (at, word)| sum ^ mix(at, word));
    DIGEST.fetch_xor(before ^ after, Ordering::Relaxed);
    result
}

/// Does `work`, which must not store to shared memory: a store ends this process, and is told.
pub(crate) fn refusing<T>(work: impl FnOnce() -> T) -> T {
    system::protect(true);
    let result = work();
    system::protect(false);
    result
}

/// Does `work` with an image taken after each of its stores to shared memory.
pub(crate) fn step<T>(work: impl FnOnce() -> T) -> T {
    STORES.store(0, Ordering::Relaxed);
    ARMED.store(true, Ordering::Relaxed);
    system::protect(true);
    let result = work();
    disarm();
    result
}

/// Ends the stepping: in an image, nobody is the victim any more.
pub(crate) fn disarm() {
    ARMED.store(false, Ordering::Relaxed);
    system::protect(false);
}

/// A call of the system, which changes its tables: one step, which is reported under this name.
pub(crate) fn change<T>(name: &'static str, work: impl FnOnce(&mut System) -> T) -> T {
    if !ARMED.swap(false, Ordering::Relaxed) {
        return system::tables(work);
    }
    system::protect(false);
    let result = noting(|| system::tables(work));
    point(Some(name), digest());
    system::protect(true);
    ARMED.store(true, Ordering::Relaxed);
    result
}

/// A point that the victim names, between two operations: of a process that dies there what it
/// knows matters (who was forked from it knows the same), so that no other image is the same.
pub(crate) fn between(what: &'static str) {
    static NAMED: AtomicU64 = AtomicU64::new(0);
    if !ARMED.swap(false, Ordering::Relaxed) {
        return;
    }
    system::protect(false);
    let named = NAMED.fetch_add(1, Ordering::Relaxed);
    // Beyond the arena, where no word of it is.
    point(Some(what), digest() ^ mix(arena::SIZE as u64 + named, 1));
    system::protect(true);
    ARMED.store(true, Ordering::Relaxed);
}

/// Installs the handlers.
pub(crate) fn install() {
    for (signal, handler) in [(libc::SIGSEGV, on_fault as Handler), (libc::SIGTRAP, on_trap)] {
        // SAFETY: plain data, for which zeros are a value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as *const () as usize;
        // An image runs within the handler that took it, and is stepped itself when its recovery
        // is to be killed.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        // SAFETY: the handlers are made for this; see each.
        let done = unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
        assert_eq!(done, 0, "sigaction");
    }
}

/// A signal that is not the stepper's, for whoever has to find out why.
fn what_happened(
    signal: &str,
    info: &libc::siginfo_t,
    address: usize,
    context: *mut libc::c_void,
) -> String {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the system passes the interrupted context.
    let context = unsafe { &*context };
    let at = context.uc_mcontext.gregs[libc::REG_RIP as usize];
    let armed = ARMED.load(Ordering::Relaxed);
    let (code, handler) = (info.si_code, what_happened as *const () as usize);
    format!("a {signal} at {address:#x}, code {code}, by {at:#x} ({handler:#x}), stepping: {armed}")
}

type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

fn has_trap_flag(context: *mut libc::c_void) -> bool {
    // SAFETY: the system passes the interrupted context.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    context.uc_mcontext.gregs[libc::REG_EFL as usize] & TRAP_FLAG != 0
}

fn set_trap_flag(context: *mut libc::c_void, on: bool) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the system passes the interrupted context, which is the handler's to change.
    let context = unsafe { &mut *context };
    let flags = &mut context.uc_mcontext.gregs[libc::REG_EFL as usize];
    *flags = if on { *flags | TRAP_FLAG } else { *flags & !TRAP_FLAG };
}

/// Stores fault only while they are refused, so the interrupted code is that of a victim, which
/// holds none of the process's own locks while it stores to shared memory: images may allocate.
extern "C" fn on_fault(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system passes what it knows of the signal.
    let info = unsafe { &*info };
    // SAFETY: the field of this signal.
    let address = unsafe { info.si_addr() }.addr();
    if !ARMED.load(Ordering::Relaxed) || !arena::contains(address) {
        crashed(&what_happened("fault", info, address, context));
    }
    let first = address & !7;
    WINDOW_AT.store(first, Ordering::Relaxed);
    for (index, before) in BEFORE.iter().enumerate() {
        let at = first + index * 8;
        let word = if arena::contains(at) { arena::word(at) } else { 0 };
        before.store(word, Ordering::Relaxed);
    }
    system::protect(false);
    set_trap_flag(context, true);
}

extern "C" fn on_trap(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system passes what it knows of the signal.
    let info = unsafe { &*info };
    let stepped =
        info.si_code == TRAP_TRACE || info.si_code == TRAP_BRKPT && has_trap_flag(context);
    if !ARMED.load(Ordering::Relaxed) || !stepped {
        crashed(&what_happened("trap", info, 0, context));
    }
    STORES.fetch_add(1, Ordering::Relaxed);
    let (first, base) = (WINDOW_AT.load(Ordering::Relaxed), arena::base().addr().get());
    let mut digest = DIGEST.load(Ordering::Relaxed);
    let mut changed = false;
    for (index, before) in BEFORE.iter().enumerate() {
        let at = first + index * 8;
        if !arena::contains(at) {
            break;
        }
        let (before, now) = (before.load(Ordering::Relaxed), arena::word(at));
        if before != now {
            changed = true;
            let offset = (at - base) as u64;
            digest ^= mix(offset, before) ^ mix(offset, now);
        }
    }
    DIGEST.store(digest, Ordering::Relaxed);
    if changed {
        point(None, self::digest());
    }
    set_trap_flag(context, false);
    system::protect(true);
}

/// The finalizer of SplitMix64 over where in the arena a word lies, which is the same in each run
/// as its address is not, and its contents.
fn mix(offset: u64, word: u64) -> u64 {
    let mut z = word ^ offset.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
