//! The processes of the swarm, as their supervisor sees them.
//!
//! The supervisor is the parent of the workers, and of what those forked off once they are dead
//! (`PR_SET_CHILD_SUBREAPER`). A process that was forked off stays a zombie until its parent is
//! dead and the supervisor collects it, so its number means nobody else as long as it is in the
//! nursery.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::{Duration, Instant};

use crate::board::{Board, PROCESSES, now};
use crate::life::seats;
use crate::nursery::{CLOSED, LIVE, TAG, VACANT};
use crate::plan::{Event, Kind};
use testkit::tool::{ensure, text};

/// Somebody who does not finish an operation for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Herd {
    name: String,
    pub(crate) board: &'static Board,
    path: String,
    workers: Vec<Option<Child>>,
    /// When each worker, and the process forked off beside it, was killed; it may take a while to
    /// die.
    killed: Vec<Option<u64>>,
    forked_killed: Vec<Option<u64>>,
    /// What each seat had done when it was last seen to do something, and when that was.
    progress: Vec<(u64, u64, Instant)>,
}

impl Herd {
    pub(crate) fn new(
        name: &str,
        board: &'static Board,
        path: String,
        processes: usize,
    ) -> Result<Self, String> {
        // SAFETY: changes who collects orphans, and nothing else.
        let done = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
        ensure(done == 0, || "can't collect orphans".into())?;
        let workers = (0..processes).map(|_| None).collect();
        let (killed, forked_killed) = (vec![None; processes], vec![None; PROCESSES]);
        let progress = board.seats.iter().map(|_| (0, 0, Instant::now())).collect();
        Ok(Self { name: name.into(), board, path, workers, killed, forked_killed, progress })
    }

    /// Starts all workers.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        self.board.nursery.iter().for_each(|word| word.store(VACANT, Relaxed));
        self.board.ending.iter().for_each(|word| word.store(0, Relaxed));
        for who in 0..self.workers.len() {
            self.workers[who] = Some(self.spawn(who)?);
        }
        self.progress.iter_mut().for_each(|(_, _, since)| *since = Instant::now());
        Ok(())
    }

    fn spawn(&self, who: usize) -> Result<Child, String> {
        let program = std::env::current_exe().map_err(text)?;
        Command::new(program)
            .args(["worker", &self.name, &self.path, &who.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .map_err(text)
    }

    /// Leaves them alone for a while, but for what `check` does.
    pub(crate) fn graze(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        self.check()?;
        while Instant::now() < end {
            // Who is dying is looked at often, to know how long it takes.
            let dying = self.killed.iter().chain(&self.forked_killed).any(Option::is_some);
            let pause = if dying { Duration::from_millis(1) } else { time };
            std::thread::sleep(pause.min(end.saturating_duration_since(Instant::now())));
            self.check()?;
        }
        Ok(())
    }

    /// Complains if somebody complained, ended by itself, or hangs. Forgets forked processes that
    /// ended.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        ensure(self.board.failed.load(Acquire) == 0, || "a worker complained".into())?;
        for who in 0..self.workers.len() {
            let Some(worker) = &mut self.workers[who] else { continue };
            let Some(status) = worker.try_wait().map_err(text)? else { continue };
            let itself = self.board.ending[who].swap(0, AcqRel) != 0;
            let suicide = itself.then(|| self.board.seats[seats(who).start].death.load(Relaxed));
            let asked = self.killed[who].take().or(suicide);
            let asked = asked.ok_or_else(|| format!("worker {who} ended by itself: {status}"))?;
            self.board.deaths.add(now() - asked);
            self.workers[who] = Some(self.spawn(who)?);
        }
        for (who, word) in self.board.nursery.iter().enumerate() {
            let live = word.load(Acquire);
            if live & TAG == LIVE && Handle::open(live >> 8).is_none_or(|handle| handle.waits(0)) {
                if let Some(asked) = self.forked_killed[who].take() {
                    self.board.deaths.add(now() - asked);
                }
                let _ = word.compare_exchange(live, VACANT, AcqRel, Relaxed);
                collect((live >> 8) as i32);
            }
        }
        for (index, seat) in self.board.seats.iter().enumerate() {
            let (at, operations) = (seat.at.load(Relaxed), seat.operations.load(Relaxed));
            let (last_at, last, since) = &mut self.progress[index];
            if at == 0 || (at, operations) != (*last_at, *last) {
                (*last_at, *last, *since) = (at, operations, Instant::now());
            }
            // A seat of the nursery may be vacant, its last tenant killed in the midst of
            // something.
            let present = index < seats(self.workers.len()).start && at != 0;
            ensure(!present || since.elapsed() < PATIENCE, || {
                let kind = Kind::ALL.get(at as usize - 1).map(|kind| kind.text());
                format!("seat {index} hangs: {kind:?}")
            })?;
        }
        Ok(())
    }

    /// Kills a worker; once it is dead, `check` starts another in its place.
    pub(crate) fn kill(&mut self, who: usize) -> Result<(), String> {
        let Some(worker) = &mut self.workers[who] else { return Ok(()) };
        if self.killed[who].is_none() {
            self.killed[who] = Some(now());
            seats(who).for_each(|seat| self.board.dies(seat));
            worker.kill().map_err(text)?;
            self.board.count(Event::Kills);
        }
        Ok(())
    }

    /// Kills the process that was forked off beside a worker, if there is one.
    pub(crate) fn kill_forked(&mut self, who: usize) {
        let live = self.board.nursery[who].load(Acquire);
        if live & TAG != LIVE || self.forked_killed[who].is_some() {
            return;
        }
        if let Some(handle) = Handle::open(live >> 8) {
            self.forked_killed[who] = Some(now());
            seats(PROCESSES + who).for_each(|seat| self.board.dies(seat));
            handle.kill();
            self.board.count(Event::Kills);
        }
    }

    /// Stops a worker for a while.
    pub(crate) fn stop(&self, who: usize, time: Duration) -> Result<(), String> {
        let Some(worker) = &self.workers[who] else { return Ok(()) };
        self.board.stop(true);
        let signal = |signal| {
            // SAFETY: a child of ours that was not waited for, so that the number is still its.
            unsafe { libc::kill(worker.id() as i32, signal) };
        };
        signal(libc::SIGSTOP);
        std::thread::sleep(time);
        signal(libc::SIGCONT);
        self.board.stop(false);
        self.board.count(Event::Stops);
        Ok(())
    }

    /// Kills all at once.
    pub(crate) fn massacre(&mut self) -> Result<(), String> {
        self.check()?;
        for who in 0..self.workers.len() {
            self.kill(who)?;
            self.kill_forked(who);
        }
        let forked: Vec<_> =
            self.board.nursery.iter().map(|word| word.swap(CLOSED, AcqRel)).collect();
        for (who, word) in forked.into_iter().enumerate() {
            let handle = (word & TAG == LIVE).then(|| Handle::open(word >> 8)).flatten();
            if let Some(handle) = handle {
                // Forked off after the last look.
                if self.forked_killed[who].is_none() {
                    seats(PROCESSES + who).for_each(|seat| self.board.dies(seat));
                    handle.kill();
                }
                let dead = handle.waits(PATIENCE.as_millis() as i32);
                ensure(dead, || format!("process {} does not die", word >> 8))?;
            }
        }
        self.killed.fill(None);
        self.forked_killed.fill(None);
        for worker in &mut self.workers {
            if let Some(mut worker) = worker.take() {
                worker.wait().map_err(text)?;
            }
        }
        // All that is left are orphans that found the nursery closed.
        let deadline = Instant::now() + PATIENCE;
        while collect(-1) {
            std::thread::sleep(Duration::from_millis(1));
            ensure(Instant::now() < deadline, || "an orphan does not end".into())?;
        }
        ensure(self.board.failed.load(Acquire) == 0, || "a worker complained".into())
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        for word in &self.board.nursery {
            let live = word.swap(CLOSED, AcqRel);
            let handle = (live & TAG == LIVE).then(|| Handle::open(live >> 8)).flatten();
            if let Some(handle) = handle {
                handle.kill();
            }
        }
        for worker in self.workers.iter_mut().flatten() {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

/// Collects a dead child, or any; whether there are still living ones.
fn collect(pid: i32) -> bool {
    loop {
        // SAFETY: a null status is allowed.
        let collected = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
        match collected {
            0 => return true,
            1.. if pid == -1 => {}
            _ => return false,
        }
    }
}

/// A process, whatever becomes of its number.
struct Handle(OwnedFd);

impl Handle {
    fn open(pid: u64) -> Option<Self> {
        // SAFETY: no preconditions.
        let file = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        // SAFETY: opened just now.
        (file >= 0).then(|| Self(unsafe { OwnedFd::from_raw_fd(file as i32) }))
    }

    fn kill(&self) {
        let (file, none) = (self.0.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: a descriptor of a process, and no further information.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, file, libc::SIGKILL, none, 0) };
    }

    /// Whether it is dead within so many milliseconds.
    fn waits(&self, milliseconds: i32) -> bool {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor, open as long as this lives.
        unsafe { libc::poll(&raw mut poll, 1, milliseconds) == 1 }
    }
}
