//! Single-stepping a closure, and logging what it stores into given ranges.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, Mutex};

type Hook = dyn Fn(&PanicHookInfo<'_>) + Sync + Send;

/// A word of shared memory that an instruction changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Store {
    pub(crate) range: usize,
    pub(crate) offset: usize,
    pub(crate) value: u64,
}

struct Recorder {
    ranges: Vec<(usize, usize)>,
    shadow: Vec<Vec<u8>>,
    /// Flat, and never longer than its capacity: the handler must not allocate.
    stores: Vec<Store>,
    /// Where in `stores` each instruction's begin.
    groups: Vec<usize>,
    overflow: bool,
}

const CHUNK: usize = 512;

static ACTIVE: AtomicBool = AtomicBool::new(false);
static RECORDER: AtomicPtr<Recorder> = AtomicPtr::new(std::ptr::null_mut());
/// One trace at a time: the signal handler belongs to the process.
static TURN: Mutex<()> = Mutex::new(());

impl Recorder {
    fn look(&mut self) {
        let before = self.stores.len();
        for (index, (base, len)) in self.ranges.iter().enumerate() {
            // SAFETY: mapped shared memory of that length; the only thread that writes to it is
            // the one that is interrupted.
            let now = unsafe { std::slice::from_raw_parts(*base as *const u8, *len) };
            let shadow = &mut self.shadow[index];
            for chunk in (0..*len).step_by(CHUNK) {
                let end = (chunk + CHUNK).min(*len);
                if now[chunk..end] == shadow[chunk..end] {
                    continue;
                }
                for word in (chunk..end).step_by(8) {
                    if now[word..word + 8] != shadow[word..word + 8] {
                        if self.stores.len() == self.stores.capacity() {
                            self.overflow = true;
                            return;
                        }
                        shadow[word..word + 8].copy_from_slice(&now[word..word + 8]);
                        let mut value = [0; 8];
                        value.copy_from_slice(&now[word..word + 8]);
                        let value = u64::from_ne_bytes(value);
                        self.stores.push(Store { range: index, offset: word, value });
                    }
                }
            }
        }
        if self.stores.len() != before && self.groups.len() < self.groups.capacity() {
            self.groups.push(before);
        }
    }
}

extern "C" fn on_trap(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if !ACTIVE.load(Ordering::Relaxed) {
        let context = context.cast::<libc::ucontext_t>();
        // SAFETY: the kernel passes the interrupted context.
        let context = unsafe { &mut *context };
        context.uc_mcontext.gregs[libc::REG_EFL as usize] &= !0x100;
        return;
    }
    let recorder = RECORDER.load(Ordering::Relaxed);
    // SAFETY: set before the trap flag was, and used by this handler alone until it is cleared.
    unsafe { &mut *recorder }.look();
}

/// Runs `operation` one instruction at a time; what it stored into `ranges`, by instruction.
pub(crate) fn stores(ranges: &[(usize, usize)], operation: impl FnOnce()) -> Vec<Vec<Store>> {
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let shadow = ranges
        .iter()
        .map(|(base, len)| {
            assert_eq!(len % 8, 0);
            // SAFETY: mapped shared memory of that length, not being written.
            unsafe { std::slice::from_raw_parts(*base as *const u8, *len) }.to_vec()
        })
        .collect();
    let recorder = Box::into_raw(Box::new(Recorder {
        ranges: ranges.to_vec(),
        shadow,
        stores: Vec::with_capacity(1 << 17),
        groups: Vec::with_capacity(1 << 17),
        overflow: false,
    }));
    RECORDER.store(recorder, Ordering::Relaxed);
    // SAFETY: all zero is a valid action, to be filled in.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_trap as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: a valid action; the handler is async-signal-safe: it allocates nothing.
    let done = unsafe { libc::sigaction(libc::SIGTRAP, &action, std::ptr::null_mut()) };
    assert_eq!(done, 0);
    // A panic ends the trace: stepping through the printing of a backtrace takes minutes.
    let hook: Arc<Hook> = Arc::from(std::panic::take_hook());
    let inner = Arc::clone(&hook);
    std::panic::set_hook(Box::new(move |info| {
        ACTIVE.store(false, Ordering::SeqCst);
        inner(info);
    }));
    ACTIVE.store(true, Ordering::SeqCst);
    // SAFETY: sets the trap flag; each trap is taken by the handler above.
    unsafe { std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    let outcome = catch_unwind(AssertUnwindSafe(operation));
    // The trap after this store clears the flag.
    ACTIVE.store(false, Ordering::SeqCst);
    std::panic::set_hook(Box::new(move |info| hook(info)));
    drop(turn);
    if let Err(payload) = outcome {
        resume_unwind(payload);
    }
    // SAFETY: from `into_raw` above; the handler is done with it.
    let recorder = unsafe { Box::from_raw(recorder) };
    assert!(!recorder.overflow, "the log is full");
    let ends = recorder.groups.iter().skip(1).copied().chain([recorder.stores.len()]);
    recorder.groups.iter().zip(ends).map(|(from, to)| recorder.stores[*from..to].to_vec()).collect()
}
