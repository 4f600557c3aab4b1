//! Takes images and judges them.
//!
//! A case is explored in a real process of its own. At each point of the victim's operation the
//! process forks: in the child the victim is dead, and everything that is left of it is what lies in
//! the arena. The child recovers and judges, and exits. To kill the one who recovers as well, the
//! child first forks once more, and there a *rescuer* recovers under the stepper, with an image at
//! each of its points; and so on.
//!
//! Each image is judged twice: by a witness that was there all along, and by a newcomer after
//! everybody else has been killed, too.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::case::Case;
use crate::process::{Process, waited};
use crate::tally::Tally;
use crate::{look, stepper, system};

/// Seconds until an image that does not come to an end is stopped.
const ALARM: u32 = 20;
/// Number of the process that opens the namespace when all others are dead.
const NEWCOMER: u64 = 40;

/// What is to be explored of a case.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Deaths in a row.
    pub(crate) depth: usize,
    /// At most so many images of each operation or recovery, evenly spread.
    pub(crate) sample: Option<u64>,
    /// Only these points: of the victim, of the first rescuer, ...
    pub(crate) only: Vec<u64>,
    /// Images judged at the same time.
    pub(crate) jobs: usize,
}

struct Explorer {
    case: &'static Case,
    plan: Plan,
    tally: &'static Tally,
    /// Points that died so far.
    path: RefCell<Vec<u64>>,
    /// Points of the operation under way.
    points: Cell<u64>,
    /// Take an image of each so many points; 0: count only.
    stride: Cell<u64>,
    seen: RefCell<HashSet<u64>>,
    children: RefCell<Vec<(i32, String)>>,
}

thread_local! {
    static CURRENT: Cell<Option<&'static Explorer>> = const { Cell::new(None) };
    /// What the panic that is unwinding said.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

fn current() -> &'static Explorer {
    CURRENT.get().expect("points are passed while a case is explored")
}

/// A point: the calling process may have died here. Of the same digest there is one image.
pub(crate) fn image(kind: Option<&'static str>, digest: u64) {
    let explorer = current();
    let number = explorer.points.get();
    explorer.points.set(number + 1);
    let victim = explorer.path.borrow().is_empty();
    if victim && explorer.stride.get() != 0 {
        explorer.tally.points.fetch_add(1, Relaxed);
        if let Some(kind) = kind {
            explorer.tally.mark(kind);
        }
    }
    let new = explorer.seen.borrow_mut().insert(digest);
    if victim && new && explorer.stride.get() != 0 {
        explorer.tally.distinct.fetch_add(1, Relaxed);
    }
    let asked = explorer.plan.only.get(explorer.path.borrow().len());
    let chosen = match (asked, explorer.stride.get()) {
        (_, 0) => false,
        (Some(asked), _) => number == *asked,
        (None, stride) => new && number.is_multiple_of(stride),
    };
    if chosen {
        explorer.in_child(format!("{}", number), || {
            stepper::disarm();
            explorer.path.borrow_mut().push(number);
            explorer.dead();
        });
    }
}

/// Marks a kind of point, or of outcome.
pub(crate) fn mark(kind: &str) {
    current().tally.mark(kind);
}

/// Ends a process that had a fault of its own.
pub(crate) fn crashed(address: usize) -> ! {
    if let Some(explorer) = CURRENT.get() {
        explorer.fail(&format!("a fault at {address:#x}"));
    }
    exit(0)
}

fn exit(code: i32) -> ! {
    // SAFETY: ends the process without running what an ordinary end would: this is a copy.
    unsafe { libc::_exit(code) }
}

fn fork() -> i32 {
    // SAFETY: there is one thread, and it holds none of the process's locks at a point.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    pid
}

/// Waits for a child; returns (its id, its status).
fn wait_for(pid: i32) -> (i32, i32) {
    let mut status = 0;
    loop {
        // SAFETY: `status` is there to be written.
        let ended = unsafe { libc::waitpid(pid, &mut status, 0) };
        if ended > 0 {
            return (ended, status);
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "waitpid: {error}");
    }
}

impl Explorer {
    /// Does `work` in a copy of this process, beside others.
    fn in_child(&self, what: String, work: impl FnOnce()) {
        while self.children.borrow().len() >= self.plan.jobs.max(1) {
            self.wait_for_one();
        }
        match fork() {
            0 => {
                // SAFETY: sets this process's timer; it ends the process.
                unsafe { libc::alarm(ALARM) };
                self.children.borrow_mut().clear();
                work();
                exit(0)
            }
            pid => self.children.borrow_mut().push((pid, what)),
        }
    }

    fn wait_for_one(&self) {
        let (pid, status) = wait_for(-1);
        let mut children = self.children.borrow_mut();
        let Some(at) = children.iter().position(|child| child.0 == pid) else { return };
        let (_, what) = children.swap_remove(at);
        drop(children);
        if libc::WIFSIGNALED(status) {
            let how = match libc::WTERMSIG(status) {
                libc::SIGALRM => "did not come to an end".to_owned(),
                signal => format!("was ended by signal {signal}"),
            };
            self.fail(&format!("what followed step {what} {how}"));
        }
    }

    fn wait_for_all(&self) {
        while !self.children.borrow().is_empty() {
            self.wait_for_one();
        }
    }

    fn fail(&self, text: &str) {
        let steps: Vec<_> = self.path.borrow().iter().map(u64::to_string).collect();
        let only =
            if steps.is_empty() { String::new() } else { format!(" --step {}", steps.join(",")) };
        let depth = steps.len().max(1);
        self.tally.fail(&format!("--op {} --depth {depth}{only}: {text}", self.case.name));
    }

    /// In an image in which one more has just died.
    fn dead(&self) {
        let deaths = self.path.borrow().len();
        if deaths == 1 {
            look::mark_kinds(self.tally, self.case);
        }
        system::kill(self.case.mortals[deaths - 1]);
        if deaths < self.plan.depth {
            self.in_child("of the recovery".into(), || self.kill_rescuer(deaths));
        }
        let wanted = self.plan.only.len();
        if wanted <= deaths {
            self.in_child("for a newcomer".into(), || self.try_judge(|| self.newcomer()));
            for order in 1..self.case.orders {
                let work = || self.try_judge(|| self.witness(order, false));
                self.in_child(format!("in order {order}"), work);
            }
            self.try_judge(|| self.witness(0, false));
        }
        self.wait_for_all();
    }

    /// Lets a rescuer recover, and kills it at each of its points.
    fn kill_rescuer(&self, number: usize) {
        let stride = match self.plan.sample {
            None => 1,
            Some(most) => {
                self.tally.counted.store(0, Relaxed);
                // Another process's count may come between: the sample is larger or smaller then.
                self.in_child("counted".into(), || {
                    self.points.set(0);
                    self.stride.set(0);
                    let recovered =
                        self.guarded(|| stepper::step(|| (self.case.recover)(number, 0)));
                    let _judged_elsewhere = recovered;
                    self.tally.counted.store(self.points.get(), Relaxed);
                });
                self.wait_for_all();
                self.tally.counted.load(Relaxed).div_ceil(most).max(1)
            }
        };
        self.points.set(0);
        self.stride.set(stride);
        self.seen.borrow_mut().clear();
        if let Err(text) = self.guarded(|| stepper::step(|| (self.case.recover)(number, 0))) {
            stepper::disarm();
            self.fail(&format!("recovery: {text}"));
        }
        self.wait_for_all();
    }

    /// The witness recovers and judges.
    fn witness(&self, order: usize, finished: bool) -> Result<(), String> {
        let deaths = self.path.borrow().len();
        let (start, waited_before) = (Instant::now(), waited());
        (self.case.recover)(0, order)?;
        self.tally.took(start.elapsed(), waited() - waited_before);
        let outcome = (self.case.judge)()?;
        self.tally.mark(outcome);
        self.tally.took(Default::default(), waited() - waited_before);
        if deaths > 0 {
            self.tally.judged[deaths - 1].fetch_add(1, Relaxed);
        }
        if finished && !matches!(outcome, "after" | "object lost") {
            return Err(format!("after the operation was done, its effect is: {outcome}"));
        }
        Ok(())
    }

    /// Everybody is dead, and somebody comes.
    fn newcomer(&self) -> Result<(), String> {
        for process in system::living() {
            system::kill(process);
        }
        (self.case.newcomer)(Process::start(NEWCOMER))
    }

    fn guarded(&self, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => result,
            Err(_) => Err(PANIC.take()),
        }
    }

    fn try_judge(&self, work: impl FnOnce() -> Result<(), String>) {
        if let Err(text) = self.guarded(work) {
            self.fail(&text);
        }
    }
}

/// Lets a copy of this process keep memory that is wiped on fork: an image is the same set of
/// processes, at the same moment, and not a child of theirs.
fn keep_on_fork() {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let mut range = None;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((from, to)) = first.split_once('-') {
            let address = |text| usize::from_str_radix(text, 16).ok();
            range = address(from).zip(address(to));
        } else if first == "VmFlags:" && words.any(|flag| flag == "wf") {
            let Some((from, to)) = range else { continue };
            let at = std::ptr::with_exposed_provenance_mut(from);
            // SAFETY: a mapping of this process; its contents stay as they are.
            let kept = unsafe { libc::madvise(at, to - from, libc::MADV_KEEPONFORK) };
            assert_eq!(kept, 0, "memory that is wiped on fork");
        }
    }
}

/// Does `work` in a copy of all there is, which it leaves as it was; returns what it found.
pub(crate) fn rehearse(work: impl FnOnce() -> u64) -> u64 {
    let answer = Tally::shared();
    let pid = fork();
    if pid == 0 {
        if let Ok(found) = catch_unwind(AssertUnwindSafe(work)) {
            answer.counted.store(found, Relaxed);
            exit(0)
        }
        exit(1)
    }
    let (_, status) = wait_for(pid);
    assert_eq!(status, 0, "a rehearsal failed");
    answer.counted.load(Relaxed)
}

/// Explores a case, in a process of its own; what it found is in the tally.
pub(crate) fn explore(
    make: fn(usize) -> Case,
    name: &'static str,
    plan: &Plan,
    tally: &'static Tally,
) {
    let pid = fork();
    if pid != 0 {
        let (_, status) = wait_for(pid);
        if status != 0 {
            tally.fail(&format!(
                "--op {name}: the exploration itself ended with status {status:#x}"
            ));
        }
        return;
    }
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("a panic").to_owned();
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        PANIC.with_borrow_mut(|panic| *panic = format!("{text} ({place})"));
    }));
    stepper::install();
    let case = catch_unwind(|| Box::leak(Box::new(make(plan.depth - 1))));
    let Ok(case) = case else {
        tally.fail(&format!("--op {name}: cannot be set up: {}", PANIC.take()));
        exit(0)
    };
    let explorer: &'static Explorer = Box::leak(Box::new(Explorer {
        case,
        plan: plan.clone(),
        tally,
        path: RefCell::default(),
        points: Cell::new(0),
        stride: Cell::new(0),
        seen: RefCell::default(),
        children: RefCell::default(),
    }));
    CURRENT.set(Some(explorer));
    keep_on_fork();
    explorer.run();
    exit(0)
}

impl Explorer {
    fn run(&self) {
        let stride = match self.plan.sample {
            None => 1,
            Some(most) => {
                self.in_child("counted".into(), || {
                    stepper::step(|| (self.case.operate)());
                    self.tally.counted.store(self.points.get(), Relaxed);
                });
                self.wait_for_all();
                self.tally.counted.load(Relaxed).div_ceil(most).max(1)
            }
        };
        self.stride.set(stride);
        let operated = self.guarded(|| {
            stepper::step(|| (self.case.operate)());
            Ok(())
        });
        stepper::disarm();
        self.tally.stores.store(stepper::stores(), Relaxed);
        self.wait_for_all();
        if let Err(text) = operated {
            self.fail(&format!("the operation itself failed: {text}"));
        } else if self.plan.only.is_empty() {
            self.in_child("(the end)".into(), || {
                system::kill(self.case.mortals[0]);
                self.try_judge(|| self.witness(0, true));
            });
            self.wait_for_all();
        }
    }
}
