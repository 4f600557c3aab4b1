//! What a fork must not copy. Windows has no `fork`: nothing is ever copied, and what is memory to
//! be wiped elsewhere is plain memory here.

use std::ops::Deref;

use crate::error::Error;

/// A value that a forked child would find as it was when new, if there were forked children.
#[derive(Debug, Default)]
pub struct Wiped<T>(Box<T>);

impl<T: Default> Wiped<T> {
    /// Allocates a value.
    ///
    /// # Errors
    ///
    /// None; other platforms have some.
    pub fn new() -> Result<Self, Error> {
        Ok(Self(Box::default()))
    }
}

impl<T> Deref for Wiped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
