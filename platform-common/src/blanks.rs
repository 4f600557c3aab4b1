//! The address ranges that a provider keeps of segments that are gone.
//!
//! Somebody may be late in such a range for as long as a thread sleeps, so that it must be given to
//! nothing else until its owner says that nobody is.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use dsm_core::provider::{Mapping, RangeOwner};

/// Ranges by owner.
#[derive(Debug, Default)]
pub struct Blanks(Mutex<HashMap<RangeOwner, Vec<Mapping>>>);

impl Blanks {
    /// Keeps a range in the name of its owner.
    pub fn keep(&self, mapping: Mapping, owner: RangeOwner) {
        let mut ranges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ranges.entry(owner).or_default().push(mapping);
    }

    /// Takes out all that an owner has.
    pub fn take(&self, owner: RangeOwner) -> Vec<Mapping> {
        let mut ranges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ranges.remove(&owner).unwrap_or_default()
    }
}
