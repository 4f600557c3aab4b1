//! What is to be explored: a scene, an operation, and what may be left of it.

use std::ops::Range;

use crate::process::Process;

/// A scene that is set up, and the questions asked about it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The victim, then the rescuers, in the order in which they die.
    pub(crate) mortals: Vec<u64>,
    /// What the victim does.
    pub(crate) operate: Box<dyn Fn()>,
    /// How a survivor finds the dead and repairs what they left: the witness (0) or a rescuer; and
    /// in which of the possible orders.
    pub(crate) recover: Box<dyn Fn(usize, usize) -> Result<(), String>>,
    /// How many orders of recovery there are.
    pub(crate) orders: usize,
    /// Whether what the witness sees is right; uses up everything, and looks for what is left
    /// over. Returns the kind of outcome.
    pub(crate) judge: Box<dyn Fn() -> Result<&'static str, String>>,
    /// Whether somebody who comes when all are dead finds what should be there.
    pub(crate) newcomer: Box<dyn Fn(Process) -> Result<(), String>>,
    /// Who takes over when all are dead and the namespace is to be kept.
    pub(crate) heir: Option<Heir>,
    /// The victim dies at the points that it names (see `stepper::between`) and nowhere else.
    pub(crate) between: bool,
    /// Where locks lie: (segment slot, offsets, what it means to hold one of them).
    pub(crate) places: Vec<Place>,
}

/// Somebody who opens a persistent namespace when all are dead.
pub(crate) struct Heir {
    /// Makes the namespace persistent, before everybody dies.
    pub(crate) persist: Box<dyn Fn()>,
    /// Whether what he finds is right, as for the witness.
    pub(crate) judge: Judge,
}

/// What a process that was started just now finds.
pub(crate) type Judge = Box<dyn Fn(Process) -> Result<&'static str, String>>;

/// Where locks of one kind lie.
pub(crate) struct Place {
    pub(crate) slot: u32,
    pub(crate) offsets: Range<u64>,
    pub(crate) what: What,
}

/// What locks protect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Area,
    Table,
    Segment,
}

/// An operation: its name, what it must pass or lead to, and how its scene is set up (with so many
/// rescuers).
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) must: &'static [&'static str],
    pub(crate) make: fn(usize) -> Case,
}
