//! Takes images and judges them.
//!
//! A case is explored in a real process of its own. At each point of the victim's operation the
//! process forks: in the child the victim is dead, and everything that is left of it is what lies
//! in the arena. The child recovers and judges, and exits. To kill the one who recovers as well,
//! the child first forks once more, and there a *rescuer* recovers under the stepper, with an image
//! at each of its points; and so on.
//!
//! Each image of one death is judged by a witness that was there all along, in each of the orders
//! in which it may come across the damage, and by a newcomer after everybody else has been killed,
//! too. Of more than one death these take turns, unless asked otherwise. Equal images are judged
//! once.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::case::Case;
use crate::process::{self, Process, waited};
use crate::seen::Seen;
use crate::tally::Tally;
use crate::{look, stepper, system};

/// Seconds until an image that does not come to an end is stopped.
const ALARM: u32 = 60;
/// Of so many images of one death the points of a recovery are counted.
const COUNTED: u64 = 16;
/// What new segments may be full of: no word of it is one that means anything.
const RUBBISH: u8 = 0xaa;
/// Numbers of the processes that open the namespace when all others are dead.
const NEWCOMER: u64 = 40;
const HEIR: u64 = 41;

/// The kind of point at which a thread ends; see [`Case::between`].
pub(crate) const ENDS: &str = "a thread ends";

/// A point of somebody who dies there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) number: u64,
    /// In which of the orders of recovery he was under way.
    pub(crate) order: usize,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.order {
            0 => write!(f, "{}", self.number),
            order => write!(f, "{}@{order}", self.number),
        }
    }
}

impl FromStr for Point {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, order) = text.split_once('@').unwrap_or((text, "0"));
        Ok(Self { number: number.parse()?, order: order.parse()? })
    }
}

/// What is to be explored of a case.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Deaths in a row.
    pub(crate) depth: usize,
    /// At most so many images of each operation or recovery, evenly spread.
    pub(crate) sample: Option<u64>,
    /// Only these points: of the victim, of the first rescuer, ...
    pub(crate) only: Vec<Point>,
    /// Also of more than one death each image is judged by every survivor, in every order. Without
    /// this they take turns, and so do the orders in which a rescuer recovers.
    pub(crate) thorough: bool,
    /// New segments are full of rubbish.
    pub(crate) rubbish: bool,
    /// Images judged at the same time.
    pub(crate) jobs: usize,
}

struct Explorer {
    case: &'static Case,
    plan: Plan,
    tally: &'static Tally,
    /// Images that were chosen so far, by anybody.
    seen: Seen,
    /// Points that died so far.
    path: RefCell<Vec<Point>>,
    /// Points of the operation or recovery under way.
    points: Cell<u64>,
    /// In which order it recovers.
    order: Cell<usize>,
    /// Take an image of each so many points; 0: count only.
    stride: Cell<u64>,
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
fn image(kind: Option<&'static str>, digest: u64) {
    current().point(kind, digest);
}

/// Marks a kind of point, or of outcome.
pub(crate) fn mark(kind: &str) {
    current().tally.mark(kind);
}

/// Ends a process that had a fault of its own.
fn crashed(how: &str) -> ! {
    current().fail(how);
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

/// Ends this process if it takes too long from now on; 0: never.
fn alarm(seconds: u32) {
    // SAFETY: sets this process's timer; it ends the process.
    unsafe { libc::alarm(seconds) };
}

impl Explorer {
    fn point(&self, kind: Option<&'static str>, digest: u64) {
        let number = self.points.get();
        self.points.set(number + 1);
        let (deaths, stride) = (self.path.borrow().len(), self.stride.get());
        if stride == 0 {
            return;
        }
        self.tally.points[deaths].fetch_add(1, Relaxed);
        if let (0, Some(kind)) = (deaths, kind) {
            self.tally.mark(kind);
        }
        let chosen = match self.plan.only.get(deaths) {
            Some(asked) => (number, self.order.get()) == (asked.number, asked.order),
            // Of the points that are named there are few.
            None => (deaths == 0 && self.case.between) || number.is_multiple_of(stride),
        };
        if !chosen || (deaths == 0 && self.case.between && kind != Some(ENDS)) {
            return;
        }
        if !self.seen.insert(digest) {
            self.tally.equal[deaths].fetch_add(1, Relaxed);
            return;
        }
        self.tally.images[deaths].fetch_add(1, Relaxed);
        let point = Point { number, order: self.order.get() };
        self.in_child(point.to_string(), || {
            stepper::disarm();
            self.path.borrow_mut().push(point);
            self.dead(digest);
        });
        alarm(if deaths == 0 { 0 } else { ALARM });
    }

    /// Does `work` in a copy of this process, beside others.
    fn in_child(&self, what: String, work: impl FnOnce()) {
        // Images of the victim's points are judged at the same time, what follows from one in turn.
        let most = if self.path.borrow().is_empty() { self.plan.jobs.max(1) } else { 1 };
        while self.children.borrow().len() >= most {
            self.wait_for_one();
        }
        match fork() {
            0 => {
                alarm(ALARM);
                self.children.borrow_mut().clear();
                work();
                exit(0)
            }
            pid => self.children.borrow_mut().push((pid, what)),
        }
    }

    fn wait_for_one(&self) {
        // The child has an alarm of its own.
        alarm(0);
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
        alarm(ALARM);
    }

    fn fail(&self, text: &str) {
        let steps: Vec<_> = self.path.borrow().iter().map(Point::to_string).collect();
        let only =
            if steps.is_empty() { String::new() } else { format!(" --step {}", steps.join(",")) };
        let depth = steps.len().max(1);
        let rubbish = if self.plan.rubbish { " --rubbish" } else { "" };
        let name = self.case.name;
        self.tally.fail(&format!("--op {name} --depth {depth}{only}{rubbish}: {text}"));
    }

    /// In an image, known by its digest, in which one more has just died.
    fn dead(&self, digest: u64) {
        let deaths = self.path.borrow().len();
        if deaths == 1 {
            look::mark_kinds(self.tally, self.case);
        }
        stepper::noting(|| system::kill(self.case.mortals[deaths - 1]));
        process::reset_clock();
        let orders = self.case.orders;
        let wanted = self.plan.only.get(deaths);
        if deaths < self.plan.depth {
            let all = self.plan.thorough || wanted.is_some();
            let mine = |order: &usize| all || *order == digest as usize % orders;
            for order in (0..orders).filter(mine) {
                self.in_child(format!("of recovery {order}"), || self.kill_rescuer(deaths, order));
            }
        }
        let survivors = orders + 1 + usize::from(self.case.heir.is_some());
        if wanted.is_some() {
            // Only the way to the image that is wanted.
        } else if deaths == 1 || self.plan.thorough || !self.plan.only.is_empty() {
            for who in 0..survivors {
                self.in_child(self.survivor(who), || self.survive(who));
            }
        } else {
            self.survive((digest >> 32) as usize % survivors);
        }
        if deaths == 1 && self.plan.depth == 1 && digest.is_multiple_of(COUNTED) {
            let work = || self.count(|| (self.case.recover)(0, 0));
            self.in_child("counted".into(), work);
        }
        self.wait_for_all();
    }

    fn survivor(&self, who: usize) -> String {
        match who.checked_sub(self.case.orders) {
            None => format!("in order {who}"),
            Some(0) => "by a newcomer".into(),
            Some(_) => "by an heir".into(),
        }
    }

    /// The witness recovers, in one of its orders; or everybody is dead, and somebody comes who
    /// finds nothing, or takes over.
    fn survive(&self, who: usize) {
        let judged = self.guarded(|| match who.checked_sub(self.case.orders) {
            None => self.witness(who, false),
            Some(0) => self.newcomer(),
            Some(_) => self.heir(),
        });
        if let Err(text) = judged {
            self.fail(&format!("{}: {text}", self.survivor(who)));
        }
    }

    /// Counts the points of some work.
    fn count(&self, work: impl FnOnce() -> Result<(), String>) {
        self.points.set(0);
        self.stride.set(0);
        // Whether it succeeds is judged elsewhere.
        let _ = self.guarded(|| stepper::step(work));
        self.tally.counted.store(self.points.get(), Relaxed);
        self.tally.took_steps(self.points.get());
    }

    /// Of how many points one is to be taken, in a sample.
    fn stride_of(&self, work: impl FnOnce() -> Result<(), String>) -> u64 {
        let Some(most) = self.plan.sample else { return 1 };
        self.tally.counted.store(0, Relaxed);
        self.in_child("counted".into(), || self.count(work));
        self.wait_for_all();
        // Another process's count may have come between: the sample is larger or smaller then.
        self.tally.counted.load(Relaxed).div_ceil(most).max(1)
    }

    /// Lets a rescuer recover, and kills it at each of its points.
    fn kill_rescuer(&self, number: usize, order: usize) {
        let stride = self.stride_of(|| (self.case.recover)(number, order));
        self.points.set(0);
        self.order.set(order);
        self.stride.set(stride);
        let recovered = self.guarded(|| stepper::step(|| (self.case.recover)(number, order)));
        if let Err(text) = recovered {
            stepper::disarm();
            self.fail(&format!("recovery in order {order}: {text}"));
        }
        self.tally.took_steps(self.points.get());
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
        system::living().into_iter().for_each(system::kill);
        (self.case.newcomer)(Process::start(NEWCOMER))?;
        self.tally.newcomers.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Everybody is dead, and somebody comes to whom they left it all.
    fn heir(&self) -> Result<(), String> {
        let Some(heir) = &self.case.heir else { return Ok(()) };
        (heir.persist)();
        system::living().into_iter().for_each(system::kill);
        let outcome = (heir.judge)(Process::start(HEIR))?;
        self.tally.mark(outcome);
        self.tally.mark("taken over");
        self.tally.newcomers.fetch_add(1, Relaxed);
        Ok(())
    }

    fn guarded(&self, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => result,
            Err(_) => Err(PANIC.take()),
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
    system::fill_new(if plan.rubbish { RUBBISH } else { 0 });
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
        seen: Seen::shared(),
        points: Cell::new(0),
        order: Cell::new(0),
        stride: Cell::new(0),
        children: RefCell::default(),
    }));
    CURRENT.set(Some(explorer));
    stepper::watch(stepper::Watcher { point: image, crashed });
    keep_on_fork();
    explorer.run();
    exit(0)
}

impl Explorer {
    fn run(&self) {
        let operate = || {
            (self.case.operate)();
            Ok(())
        };
        let stride = self.stride_of(operate);
        self.points.set(0);
        self.stride.set(stride);
        let operated = self.guarded(|| stepper::step(operate));
        stepper::disarm();
        self.tally.stores.store(stepper::stores(), Relaxed);
        self.wait_for_all();
        if let Err(text) = operated {
            self.fail(&format!("the operation itself failed: {text}"));
        } else if self.plan.only.is_empty() {
            self.in_child("(the end)".into(), || {
                system::kill(self.case.mortals[0]);
                if let Err(text) = self.guarded(|| self.witness(0, true)) {
                    self.fail(&text);
                }
            });
            self.wait_for_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scene whose making takes a signal, as wild code does.
    fn faulty(_: usize) -> Case {
        // SAFETY: no preconditions; ends the process.
        unsafe { libc::raise(libc::SIGSEGV) };
        unreachable!("the handler does not return");
    }

    #[test]
    fn a_fault_while_a_scene_is_set_up_is_told() {
        crate::arena::map();
        let tally = Tally::shared();
        let plan = Plan {
            depth: 1,
            sample: None,
            only: Vec::new(),
            thorough: false,
            jobs: 1,
            rubbish: false,
        };
        explore(faulty, "faulty", &plan, tally);
        let texts = tally.texts();
        assert!(texts.iter().any(|text| text.contains("ended with status")), "{texts:?}");
    }
}
