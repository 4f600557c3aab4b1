//! The books: what everybody notes about what it is doing, in memory that has nothing to do with
//! what is under test.
//!
//! The board is an anonymous file of the supervisor's, mapped by everybody. It has a [`Seat`] for
//! each thread of each process. Whoever has the seat writes down there, before each change to what
//! is shared, what the change leads to; whoever has the seat next (or the supervisor, when all are
//! dead) finds out whether it happened, and completes the books. So every change is accounted for
//! exactly, whenever its author was killed.
//!
//! Times are of the system's monotonic clock, which all processes share.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::plan::{Child, Event, Kind, Random, Raw};
use testkit::tool::{ensure, text};

/// Processes that the supervisor starts, at most; each may have one forked off beside it.
pub(crate) const PROCESSES: usize = 16;
/// Threads of a process.
pub(crate) const THREADS: usize = 2;
pub(crate) const SEATS: usize = 2 * PROCESSES * THREADS;
pub(crate) const LOCKS: usize = 6;
pub(crate) const MAILBOXES: usize = 8;
pub(crate) const NAMES: usize = 6;

/// Durations in microseconds, in steps of a quarter of their size.
#[repr(C)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; Self::BUCKETS],
    longest: AtomicU64,
}

impl Histogram {
    const BUCKETS: usize = 128;

    pub(crate) fn add(&self, nanoseconds: u64) {
        let micros = nanoseconds / 1000 + 1;
        let magnitude = micros.ilog2() as usize;
        let quarter = ((micros << 2) >> magnitude) as usize & 3;
        let bucket = (magnitude * 4 + quarter).min(Self::BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.longest.fetch_max(nanoseconds, Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// Milliseconds that so many of a thousand do not exceed, rounded up to the bucket's end.
    pub(crate) fn quantile(&self, of_thousand: u64) -> f64 {
        let wanted = self.count() * of_thousand / 1000;
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Relaxed);
            if seen > wanted {
                let end = (((index & 3) + 5) as f64) * f64::powi(2.0, index as i32 / 4) / 4.0;
                return (end / 1e3).min(self.longest());
            }
        }
        self.longest()
    }

    /// Milliseconds.
    pub(crate) fn longest(&self) -> f64 {
        self.longest.load(Relaxed) as f64 / 1e6
    }
}

/// What the tenants of a seat write down; all zero at the start.
#[repr(C, align(64))]
pub(crate) struct Seat {
    /// How often it was taken.
    pub(crate) generation: AtomicU64,
    /// 1 + the kind of operation in progress; 0 between two.
    pub(crate) at: AtomicU64,
    /// When the tenant of generation `dead` died, or was about to be killed.
    pub(crate) death: AtomicU64,
    pub(crate) dead: AtomicU64,
    /// The thread that ended raw, and has not been replaced; 0 for none.
    pub(crate) ended: AtomicU64,
    pub(crate) operations: AtomicU64,
    /// Accounts: 1 + the key about to be incremented, what that leads to, increments done, and how
    /// many that is then.
    pub(crate) account: AtomicU64,
    pub(crate) balance: AtomicU64,
    pub(crate) increments: AtomicU64,
    pub(crate) then: AtomicU64,
    /// The keys of its own in the table that grows and shrinks: from `low` to below `high`, except
    /// that those below `removing`, and the one below `inserting`, may be either there or not.
    pub(crate) low: AtomicU64,
    pub(crate) high: AtomicU64,
    pub(crate) removing: AtomicU64,
    pub(crate) inserting: AtomicU64,
    /// Locks: 1 + the one whose record is about to be changed, and changes done under each.
    pub(crate) locking: AtomicU64,
    pub(crate) locked: [AtomicU64; LOCKS],
    /// Segments about to be pinned and put into a mailbox, or taken out of it and unpinned.
    pub(crate) pinning: AtomicU64,
    pub(crate) unpinning: AtomicU64,
}

#[repr(C)]
pub(crate) struct Board {
    pub(crate) seed: AtomicU64,
    /// The supervisor's process id.
    supervisor: AtomicU64,
    /// A bit for each kind of operation that is to be done.
    chosen: AtomicU64,
    /// Whether each worker runs a reaper.
    pub(crate) reapers: AtomicU64,
    /// How many are stopped, and how often that changed.
    stopped: AtomicU64,
    stops: AtomicU64,
    /// Somebody complained.
    pub(crate) failed: AtomicU64,
    /// For each process: the one forked off beside it; see `nursery`.
    pub(crate) nursery: [AtomicU64; PROCESSES],
    /// Set by a process that kills itself.
    pub(crate) ending: [AtomicU64; 2 * PROCESSES],
    /// Handles of pinned segments, for everybody to attach.
    pub(crate) mailboxes: [AtomicU64; MAILBOXES],
    /// Who initialises a name.
    pub(crate) naming: [AtomicU64; 2 * NAMES],
    /// From the death of a lock's holder, or the wish for the lock if that was later, until
    /// a survivor had it.
    pub(crate) lock_waits: Histogram,
    /// The same for entries and names of the registry's namespace, where a reaper may run.
    pub(crate) name_waits: Histogram,
    /// Of whole operations, while nobody was stopped.
    pub(crate) operations: Histogram,
    /// From the signal to when the system says that the process is dead.
    pub(crate) deaths: Histogram,
    /// How much later than asked for a sleeper got a processor.
    pub(crate) scheduling: Histogram,
    done: [AtomicU64; Kind::ALL.len()],
    longest: [AtomicU64; Kind::ALL.len()],
    died: [AtomicU64; Kind::ALL.len()],
    raw: [AtomicU64; Raw::ALL.len()],
    children: [AtomicU64; Child::ALL.len()],
    events: [AtomicU64; Event::ALL.len()],
    pub(crate) seats: [Seat; SEATS],
}

/// Nanoseconds of a clock that all processes share.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Who has which seat, in a word; never 0.
#[derive(Clone, Copy)]
pub(crate) struct Tenant {
    pub(crate) seat: usize,
    pub(crate) generation: u64,
}

impl Tenant {
    pub(crate) fn word(self) -> u64 {
        self.generation << 8 | (self.seat as u64 + 1)
    }
}

impl Board {
    /// A new board, mapped for ever, and the path by which children find it.
    pub(crate) fn create(seed: u64) -> Result<(&'static Self, String), String> {
        // SAFETY: the name is a string constant.
        let file = unsafe { libc::memfd_create(c"crash-swarm".as_ptr(), libc::MFD_CLOEXEC) };
        ensure(file >= 0, || format!("no board: {}", std::io::Error::last_os_error()))?;
        // SAFETY: opened just now.
        let file = unsafe { File::from_raw_fd(file) };
        file.set_len(size_of::<Self>() as u64).map_err(text)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let board = Self::map(&file)?;
        board.seed.store(seed, Relaxed);
        board.supervisor.store(u64::from(std::process::id()), Relaxed);
        // Open as long as the supervisor lives, for those who come later.
        std::mem::forget(file);
        Ok((board, path))
    }

    pub(crate) fn open(path: &str) -> Result<&'static Self, String> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(text)?;
        Self::map(&file)
    }

    fn map(file: &File) -> Result<&'static Self, String> {
        // SAFETY: a new mapping of a file that has the board's size.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Self>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        ensure(at != libc::MAP_FAILED, || "the board can't be mapped".into())?;
        // SAFETY: mapped for ever, aligned to a page, and any bytes are atomics.
        Ok(unsafe { &*at.cast::<Self>() })
    }

    /// Decides which kinds of operations are done: those whose names contain one of the texts, or
    /// all.
    pub(crate) fn choose(&self, only: &[String]) -> Result<(), String> {
        let chosen = |kind: &Kind| {
            only.is_empty() || only.iter().any(|text| kind.text().contains(text.as_str()))
        };
        let bits = Kind::ALL.iter().filter(|kind| chosen(kind)).map(|kind| 1 << *kind as u64);
        self.chosen.store(bits.sum(), Relaxed);
        ensure(self.chosen.load(Relaxed) != 0, || format!("no operation contains {only:?}"))
    }

    pub(crate) fn is_chosen(&self, kind: Kind) -> bool {
        self.chosen.load(Relaxed) & 1 << kind as u64 != 0
    }

    /// A generator of its own for each tenant of each seat.
    pub(crate) fn random(&self, tenant: Tenant) -> Random {
        Random::new(self.seed.load(Relaxed), tenant.word())
    }

    /// Whether the supervisor is gone, who would have killed everybody.
    pub(crate) fn is_abandoned(&self) -> bool {
        // SAFETY: signal 0 is never delivered.
        unsafe { libc::kill(self.supervisor.load(Relaxed) as libc::pid_t, 0) != 0 }
    }

    /// Takes a seat for the next tenant.
    pub(crate) fn sit(&self, seat: usize) -> Tenant {
        let generation = self.seats[seat].generation.fetch_add(1, AcqRel) + 1;
        Tenant { seat, generation }
    }

    /// Notes the time of death of whoever has the seat, before it comes.
    pub(crate) fn dies(&self, seat: usize) {
        let seat = &self.seats[seat];
        seat.death.store(now(), Relaxed);
        seat.dead.store(seat.generation.load(Acquire), Release);
    }

    /// A survivor has what the dead `holder` had, and had wanted it since `asked`.
    pub(crate) fn waited(&self, waits: &Histogram, holder: u64, asked: Asked) {
        let Some(seat) = (holder & 0xff).checked_sub(1) else { return };
        let seat = &self.seats[seat as usize % SEATS];
        let known = seat.dead.load(Acquire) == holder >> 8;
        let died = if known { seat.death.load(Relaxed) } else { 0 };
        if asked.undisturbed.is_some() && asked.undisturbed == self.undisturbed() {
            waits.add(now().saturating_sub(died.max(asked.since)));
        }
    }

    pub(crate) fn ask(&self) -> Asked {
        Asked { since: now(), undisturbed: self.undisturbed() }
    }

    /// Says that somebody is stopped, or goes on.
    pub(crate) fn stop(&self, begins: bool) {
        let step = if begins { 1 } else { u64::MAX };
        self.stopped.fetch_add(step, AcqRel);
        self.stops.fetch_add(1, AcqRel);
    }

    /// Differs between two moments if anybody was stopped meanwhile; `None` while somebody is.
    fn undisturbed(&self) -> Option<u64> {
        let now = self.stops.load(Acquire);
        (self.stopped.load(Acquire) == 0).then_some(now)
    }

    pub(crate) fn begin(&self, seat: usize, kind: Kind) -> Asked {
        self.seats[seat].at.store(kind as u64 + 1, Release);
        self.ask()
    }

    pub(crate) fn end(&self, seat: usize, kind: Kind, asked: Asked) {
        if asked.undisturbed.is_some() && asked.undisturbed == self.undisturbed() {
            let took = now() - asked.since;
            self.operations.add(took);
            self.longest[kind as usize].fetch_max(took, Relaxed);
        }
        self.done[kind as usize].fetch_add(1, Relaxed);
        self.seats[seat].operations.fetch_add(1, Relaxed);
        self.seats[seat].at.store(0, Release);
    }

    /// Notes what the last tenant of a seat was doing when it died.
    pub(crate) fn bury(&self, seat: usize) {
        let at = self.seats[seat].at.swap(0, AcqRel);
        if let Some(kind) = (at as usize).checked_sub(1).and_then(|kind| self.died.get(kind)) {
            kind.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn count(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn count_raw(&self, raw: Raw) {
        self.raw[raw as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn count_child(&self, child: Child) {
        self.children[child as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn done(&self, kind: Kind) -> u64 {
        self.done[kind as usize].load(Relaxed)
    }

    /// Milliseconds of the longest operation of a kind while nobody was stopped.
    pub(crate) fn longest(&self, kind: Kind) -> f64 {
        self.longest[kind as usize].load(Relaxed) as f64 / 1e6
    }

    pub(crate) fn died(&self, kind: Kind) -> u64 {
        self.died[kind as usize].load(Relaxed)
    }

    pub(crate) fn raw(&self, raw: Raw) -> u64 {
        self.raw[raw as usize].load(Relaxed)
    }

    pub(crate) fn child(&self, child: Child) -> u64 {
        self.children[child as usize].load(Relaxed)
    }

    pub(crate) fn event(&self, event: Event) -> u64 {
        self.events[event as usize].load(Relaxed)
    }
}

/// When something was asked for.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) since: u64,
    undisturbed: Option<u64>,
}
