//! A role that one process at a time plays: running the worker, writing the dump file.
//!
//! A claim is one word in shared memory that names its holder by pid and start time: taken by one
//! compare-and-swap, given back by another. Because the word names its holder, a process that was
//! killed keeps nothing: who finds that the holder is gone takes the claim over from exactly that
//! word. The start time tells a process from a later one with the same pid.
//!
//! Whether a process lives is read from `/proc` (Linux); who can't be looked up there and is not
//! known to be gone counts as alive.

use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromBytes, KnownLayout};

/// Bits of the word that hold the start time; the pid is above them.
const START_BITS: u32 = 42;

/// A claim in shared memory. Zero: nobody's.
#[derive(FromBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct Claim {
    holder: AtomicU64,
}

impl Claim {
    /// Takes the claim for this process, until the result is dropped.
    ///
    /// # Errors
    ///
    /// The pid of the living process that has it.
    pub(crate) fn take(&self) -> Result<Held<'_>, u32> {
        let me = word(std::process::id());
        loop {
            let holder = self.holder.load(Ordering::Acquire);
            if holder != 0 && is_alive(holder) {
                return Err(pid(holder));
            }
            let taken =
                self.holder.compare_exchange(holder, me, Ordering::AcqRel, Ordering::Relaxed);
            if taken.is_ok() {
                return Ok(Held { claim: self, me });
            }
        }
    }

    /// The pid of the living process that has it.
    pub(crate) fn holder(&self) -> Option<u32> {
        let holder = self.holder.load(Ordering::Acquire);
        (holder != 0 && is_alive(holder)).then(|| pid(holder))
    }
}

/// A claim of this process; given back when dropped.
pub(crate) struct Held<'c> {
    claim: &'c Claim,
    me: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Fails only if somebody thought this process dead; then the claim is theirs.
        let _ = self.claim.holder.compare_exchange(self.me, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

fn word(pid: u32) -> u64 {
    let start = stat(pid).map_or(0, |stat| stat.start);
    u64::from(pid) << START_BITS | start & ((1 << START_BITS) - 1)
}

fn pid(word: u64) -> u32 {
    (word >> START_BITS) as u32
}

fn is_alive(holder: u64) -> bool {
    match stat(pid(holder)) {
        Some(stat) => !stat.is_zombie && word(pid(holder)) == holder,
        None => std::fs::metadata("/proc/self/stat").is_err(),
    }
}

struct Stat {
    is_zombie: bool,
    start: u64,
}

/// State and start time of a process, from `/proc/PID/stat`; `None` if there is none.
fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name, is in parentheses and may contain anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    // Field 22 of proc(5); the first of `fields` was the third.
    let start = fields.nth(18)?.parse().ok()?;
    Some(Stat { is_zombie, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(holder: u64) -> Claim {
        Claim { holder: AtomicU64::new(holder) }
    }

    #[test]
    fn a_claim_is_one_process_s_at_a_time() {
        let claim = claim(0);
        let held = claim.take().ok().unwrap();
        assert_eq!(claim.take().err(), Some(std::process::id()));
        assert_eq!(claim.holder(), Some(std::process::id()));
        drop(held);
        assert_eq!(claim.holder(), None);
        assert!(claim.take().is_ok());
    }

    #[test]
    fn the_dead_keep_nothing() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let claim = claim(word(child.id()));
        assert_eq!(claim.take().err(), Some(child.id()), "it lives");
        child.kill().unwrap();
        // A killed child is a zombie until it is waited for, and after that gone.
        while claim.holder().is_some() {
            std::thread::yield_now();
        }
        drop(claim.take().ok().unwrap());
        child.wait().unwrap();
        assert!(claim.take().is_ok());
    }

    #[test]
    fn a_pid_used_again_is_another_process() {
        let me = word(std::process::id());
        assert_eq!(claim(me - 1).holder(), None);
        assert_eq!(claim(me).holder(), Some(std::process::id()));
    }
}
