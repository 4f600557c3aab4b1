//! The supervisor: starts the workers, kills some of them, and replaces the dead.
//!
//! When and whom it kills is drawn before the run from a seed. Moments are progress, not time: the
//! i-th kill falls into the i-th part of the work, however fast the machine is, and if nobody can
//! be killed just then (all victims so far are still being replaced), the others wait. Every other
//! one, the first among them, is aimed: the victim is told to stop between the two stores of its
//! next update, the entry of the word locked, and is killed there; the others die wherever they
//! are.
//!
//! A supervisor may come late to any of this. Pieces of the text beyond the next kill, and some
//! words for each that is to come, stay closed, so that it never finds all the work done. If no
//! open piece has a word left, it opens one more and has who takes it wait there. And a victim may
//! have counted the last word of its piece just before it was told to stop: it may not find another
//! then, so that the wish is withdrawn, and somebody else is chosen.
//!
//! A worker's process is replaced in the same slot of the board: what the slot owns, the
//! replacement goes on with. Recovery is timed from just before the kill until the replacement
//! has counted its first word: the end of the old process and the start of the new one included.

use std::process::{Child, ExitStatus};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::board::{Board, GO_ON, STOP_MIDWAY, STOPPED};
use super::summary::Recovery;

/// How often the supervisor looks at its workers.
const POLL: Duration = Duration::from_millis(1);
/// How long the workers may count nothing at all before the supervisor gives up.
const STALL: Duration = Duration::from_secs(60);

/// A kill to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    /// When: how many words are counted by then.
    pub(crate) at: u64,
    /// Whether the victim is stopped in the midst of an update first.
    pub(crate) midway: bool,
    /// Chooses among those who can be killed then.
    pub(crate) pick: u64,
}

/// Draws `kills` kills, spread over the work but for its beginning and end.
pub(crate) fn plan(total: u64, kills: usize, seed: u64) -> Vec<Kill> {
    let mut random = SplitMix(seed);
    (0..kills)
        .map(|turn| {
            let within = (random.next() >> 11) as f64 / (1u64 << 53) as f64;
            let share = 0.05 + 0.8 * (turn as f64 + within) / kills as f64;
            let at = (total as f64 * share) as u64;
            Kill { at, midway: turn % 2 == 0, pick: random.next() }
        })
        .collect()
}

/// Steele, Lea and Flood's SplitMix64.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What a run of the workers came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Workers killed.
    pub(crate) killed: usize,
    /// Of these, in the midst of an update.
    pub(crate) killed_midway: usize,
    /// Each death whose replacement has taken over.
    pub(crate) deaths: Vec<Recovery>,
    /// How long it all took.
    pub(crate) elapsed: Duration,
}

/// A dead worker whose replacement has not counted yet.
struct Pending {
    worker: usize,
    generation: u64,
    midway: bool,
    killed: Instant,
}

/// A worker's process; killed if the supervisor fails.
struct Process {
    child: Option<Child>,
    generation: u64,
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Fails only for one that has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs `workers` processes to their end, killing and replacing them as planned.
///
/// `spawn(worker, generation)` starts a process for a slot; `progress(words)` is called often.
pub(crate) fn run(
    board: &Board,
    workers: usize,
    plan: &[Kill],
    spawn: &dyn Fn(usize, u64) -> Result<Child, String>,
    progress: &mut dyn FnMut(u64),
) -> Result<Outcome, String> {
    let start = Instant::now();
    let mut outcome = Outcome::default();
    let mut pending: Vec<Pending> = Vec::new();
    let mut processes = Vec::new();
    let mut to_come = plan;
    open_up_to(board, workers, to_come);
    for worker in 0..workers {
        processes.push(Process { child: Some(spawn(worker, 1)?), generation: 1 });
    }
    let mut last_change = (0, Instant::now());
    loop {
        let done = board.done();
        progress(done);
        if done != last_change.0 {
            last_change = (done, Instant::now());
        } else if last_change.1.elapsed() > STALL {
            return Err(format!("the workers have counted nothing for {} s", STALL.as_secs()));
        }
        let alive = collect(&mut processes)?;
        pending.retain(|death| match recovered(board, death) {
            Some(recovery) => {
                outcome.deaths.push(recovery);
                false
            }
            None => true,
        });
        if alive == 0 && pending.is_empty() {
            break;
        }
        let all_open_done = board.is_open_work_done();
        let due = to_come.first().filter(|kill| done >= kill.at || all_open_done);
        if due.is_some_and(|kill| kill.midway) {
            board.hold.store(1, Ordering::Relaxed);
        }
        let death = due.and_then(|kill| try_kill(board, &mut processes, &pending, kill));
        // Whoever is to be killed at this point of the work must not come to its end.
        let waiting = due.is_some() && death.is_none();
        board.hold.store(u64::from(waiting), Ordering::Relaxed);
        if waiting && all_open_done {
            board.open.fetch_add(1, Ordering::Release);
        }
        if let Some(death) = death {
            to_come = &to_come[1..];
            open_up_to(board, workers, to_come);
            outcome.killed += 1;
            outcome.killed_midway += usize::from(death.midway);
            let process = &mut processes[death.worker];
            process.generation = death.generation;
            process.child = Some(spawn(death.worker, death.generation)?);
            pending.push(death);
        }
        std::thread::sleep(POLL);
    }
    outcome.elapsed = start.elapsed();
    Ok(outcome)
}

/// Opens the pieces up to the next kill, with one more for each worker; all if no kill is to come.
/// As many as have a word for each kill to come stay closed.
fn open_up_to(board: &Board, workers: usize, to_come: &[Kill]) {
    let pieces = board.pieces().len() as u64;
    let open = match to_come.first() {
        Some(kill) => {
            let share = kill.at as f64 / board.total() as f64;
            let wanted = (pieces as f64 * share).ceil() as u64 + workers as u64;
            let words_each = (board.total() / pieces.max(1)).max(1);
            let kept = (to_come.len() as u64).div_ceil(words_each);
            wanted.min(pieces.saturating_sub(kept))
        }
        None => pieces,
    };
    // Never fewer than there were.
    board.open.fetch_max(open, Ordering::AcqRel);
}

/// Takes note of those that have ended; returns how many have not.
fn collect(processes: &mut [Process]) -> Result<usize, String> {
    let mut alive = 0;
    for (worker, process) in processes.iter_mut().enumerate() {
        let Some(child) = &mut process.child else { continue };
        match child.try_wait() {
            Ok(None) => alive += 1,
            Ok(Some(status)) if status.success() => process.child = None,
            Ok(Some(status)) => {
                process.child = None;
                return Err(failed(worker, status));
            }
            Err(error) => return Err(format!("cannot wait for worker {worker}: {error}")),
        }
    }
    Ok(alive)
}

fn failed(worker: usize, status: ExitStatus) -> String {
    format!("worker {worker} ended by itself: {status}")
}

fn recovered(board: &Board, death: &Pending) -> Option<Recovery> {
    let slot = &board.workers[death.worker];
    if slot.started.load(Ordering::Acquire) < death.generation {
        return None;
    }
    Some(Recovery {
        worker: death.worker,
        midway: death.midway,
        piece: slot.first_piece.load(Ordering::Relaxed).checked_sub(1),
        word: slot.first_word.load(Ordering::Relaxed),
        milliseconds: death.killed.elapsed().as_secs_f64() * 1e3,
    })
}

/// Kills somebody, unless nobody can be killed just now: then it is tried again.
fn try_kill(
    board: &Board,
    processes: &mut [Process],
    pending: &[Pending],
    kill: &Kill,
) -> Option<Pending> {
    let victims: Vec<usize> = (0..processes.len())
        .filter(|&worker| {
            let process = &processes[worker];
            let has_started =
                board.workers[worker].started.load(Ordering::Acquire) == process.generation;
            let is_replaced = pending.iter().all(|death| death.worker != worker);
            process.child.is_some() && has_started && is_replaced && board.is_busy(worker)
        })
        .collect();
    let worker = *victims.get(kill.pick.checked_rem(victims.len() as u64)? as usize)?;
    let process = &mut processes[worker];
    let child = process.child.as_mut()?;
    if kill.midway && !stop_midway(board, worker, || !matches!(child.try_wait(), Ok(None))) {
        return None;
    }
    let killed = Instant::now();
    let was_alive = matches!(child.try_wait(), Ok(None)) && child.kill().is_ok();
    if !was_alive {
        return None;
    }
    let _ = child.wait();
    process.child = None;
    board.workers[worker].stop.store(GO_ON, Ordering::Relaxed);
    Some(Pending { worker, generation: process.generation + 1, midway: kill.midway, killed })
}

/// Has the worker stop in the midst of its next update. False if none is in sight: it goes on then,
/// if there is more to do.
fn stop_midway(board: &Board, worker: usize, mut has_ended: impl FnMut() -> bool) -> bool {
    let wish = &board.workers[worker].stop;
    wish.store(STOP_MIDWAY, Ordering::Relaxed);
    let asked = Instant::now();
    while wish.load(Ordering::Acquire) != STOPPED {
        if has_ended() || !board.is_busy(worker) || asked.elapsed() > STALL {
            // Unless it has stopped just now.
            let order = (Ordering::AcqRel, Ordering::Acquire);
            return wish.compare_exchange(STOP_MIDWAY, GO_ON, order.0, order.1).is_err();
        }
        std::thread::sleep(POLL / 4);
    }
    true
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    /// A board with a piece of two words, of which worker 0 has one to go.
    fn board() -> Board {
        let board = Board::new_zeroed();
        board.passes.store(1, Ordering::Relaxed);
        board.set_pieces(&[(0..4, 2)]);
        board.open.store(1, Ordering::Relaxed);
        assert_eq!(board.claim(0), Some(0));
        board.pieces()[0].next.store(1, Ordering::Relaxed);
        board
    }

    #[test]
    fn kills_are_spread_over_the_work_and_repeatable() {
        let kills = plan(1000, 8, 42);
        assert_eq!(kills, plan(1000, 8, 42));
        assert_ne!(kills, plan(1000, 8, 43));
        assert!(kills.windows(2).all(|two| two[0].at <= two[1].at));
        assert!(kills.iter().all(|kill| (50..=850).contains(&kill.at)));
        assert_eq!(kills.iter().filter(|kill| kill.midway).count(), 4);
        assert!(kills[0].midway, "the first is aimed");
        assert!(plan(1000, 0, 1).is_empty());
    }

    #[test]
    fn a_victim_that_has_no_word_left_is_not_waited_for() {
        let board = board();
        let stop = &board.workers[0].stop;
        let mut looks = 0;
        let last_word_is_counted = || {
            looks += 1;
            board.pieces()[0].next.store(2, Ordering::Relaxed);
            false
        };
        assert!(!stop_midway(&board, 0, last_word_is_counted));
        assert_eq!((looks, stop.load(Ordering::Relaxed)), (1, GO_ON));
    }

    #[test]
    fn a_victim_that_has_stopped_is_found_even_at_the_last_moment() {
        let board = board();
        let stop = &board.workers[0].stop;
        let stops = || {
            stop.store(STOPPED, Ordering::Relaxed);
            true
        };
        assert!(stop_midway(&board, 0, stops));
        assert_eq!(stop.load(Ordering::Relaxed), STOPPED);
    }
}
