//! What a model is: a play, and what is expected of many executions of it.

use crate::play::Play;

/// A model.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// At most so many die.
    pub(crate) mortals: u64,
    /// Executions, in percent of what is asked for.
    pub(crate) share: u64,
    /// Kinds of points and outcomes that it is for.
    pub(crate) kinds: &'static [&'static str],
    pub(crate) act: fn(&mut Play),
}
