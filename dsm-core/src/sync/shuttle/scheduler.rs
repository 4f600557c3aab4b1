//! Who goes on.
//!
//! A uniformly random choice at each point lets all threads advance at about the same pace, and
//! hardly ever stops one in a window of a few instructions while others do whole operations. So
//! each execution draws one of two manners: *sticky*, in which a thread goes on for some points,
//! how many being drawn on a scale from one to thousands; and *ranked*, in which the highest in a
//! random order runs and at a few random points whoever runs becomes the lowest (Burckhardt,
//! Kothari, Musuvathi, Nagarakatti: "A randomized scheduler with probabilistic guarantees of
//! finding bugs", ASPLOS 2010).

use std::vec::Vec;

use ::shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

use super::{Fate, State, next, pass, with};

/// Times that threads may give way before those who sleep are thought to be whom they wait for.
const PROD: u32 = 3000;

enum Manner {
    /// Goes on with all but one in so many points.
    Sticky(u64),
    /// The ranks of threads, and the lowest as yet; one in so many points demotes.
    Ranked { ranks: Vec<i64>, lowest: i64, demotes: u64 },
}

/// Chooses threads in one execution.
pub(super) struct Strategy {
    random: u64,
    manner: Manner,
    begun: bool,
}

impl Strategy {
    pub(super) fn new(seed: u64, length: u64) -> Self {
        let mut random = seed;
        let manner = if next(&mut random) % 2 == 0 {
            const SCALE: [u64; 8] = [1, 2, 4, 10, 30, 100, 400, 2000];
            Manner::Sticky(SCALE[(next(&mut random) % 8) as usize])
        } else {
            let changes = 1 + next(&mut random) % 6;
            Manner::Ranked { ranks: Vec::new(), lowest: 0, demotes: length.max(1) / changes + 1 }
        };
        Self { random, manner, begun: false }
    }

    fn draw(&mut self, below: u64) -> u64 {
        (next(&mut self.random) >> 11) % below
    }

    /// Of those that can go on, one; `current` is among them unless it just gave way.
    fn choose(&mut self, able: &[usize], current: Option<usize>, gave_way: bool) -> usize {
        if let Manner::Sticky(stick) = self.manner {
            return match current {
                Some(current) if able.contains(&current) && self.draw(stick) != 0 => current,
                _ => able[self.draw(able.len() as u64) as usize],
            };
        }
        let drawn = self.draw(1 << 40);
        let highest = able.iter().copied().chain(current).max().unwrap_or_default();
        let Manner::Ranked { ranks, lowest, demotes } = &mut self.manner else { unreachable!() };
        while ranks.len() <= highest {
            ranks.push((next(&mut self.random) >> 20) as i64);
        }
        if let Some(current) = current {
            if gave_way || drawn % *demotes == 0 {
                *lowest -= 1;
                ranks[current] = *lowest;
            }
        }
        able.iter().copied().max_by_key(|thread| ranks[*thread]).unwrap_or_default()
    }
}

/// Those of `runnable` that can go on, and whether somebody among the others sleeps.
fn able(state: &mut State, runnable: &[usize]) -> Vec<usize> {
    let mut able = Vec::new();
    for index in runnable {
        let thread = state.thread(*index);
        let dead = matches!(thread.fate, Fate::Dead);
        if !dead && thread.sleep.is_none() && !thread.waits_for_all {
            able.push(*index);
        }
    }
    able
}

/// Ends the earliest sleep; returns whose it was.
fn end_a_sleep(state: &mut State, runnable: &[usize]) -> Option<usize> {
    let sleepers = runnable.iter().filter_map(|index| {
        let thread = state.threads.get(*index)?;
        if matches!(thread.fate, Fate::Dead) {
            None
        } else {
            Some((thread.sleep.as_ref()?.until, *index))
        }
    });
    let (until, first) = sleepers.min()?;
    let time = until.saturating_sub(state.now);
    state.thread(first).sleep = None;
    pass(state, time);
    Some(first)
}

impl Scheduler for Strategy {
    fn new_execution(&mut self) -> Option<Schedule> {
        (!core::mem::replace(&mut self.begun, true)).then(|| Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let runnable: Vec<usize> = runnable.iter().map(|task| usize::from(task.id())).collect();
        let current = current.map(usize::from);
        let chosen = with(|state| {
            state.gave_way += u32::from(is_yielding);
            state.points += 1;
            let mut able = able(state, &runnable);
            let alone = able.len() == 1 && Some(able[0]) == current;
            if is_yielding && !able.is_empty() && !alone {
                able.retain(|index| Some(*index) != current);
            }
            // Who gives way to nobody, or again and again, waits for somebody who sleeps.
            if able.is_empty() || is_yielding && (alone || state.gave_way > PROD) {
                state.gave_way = 0;
                if let Some(first) = end_a_sleep(state, &runnable) {
                    return Some(first);
                }
            }
            if able.is_empty() {
                return runnable.iter().copied().find(|i| state.thread(*i).waits_for_all);
            }
            Some(self.choose(&able, current, is_yielding))
        });
        chosen.map(TaskId::from)
    }

    fn next_u64(&mut self) -> u64 {
        next(&mut self.random)
    }
}
