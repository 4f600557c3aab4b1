//! What this process has attached, by handle: attached once, and shared by all its threads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::error::Error;

/// The attached objects of one sort.
pub(crate) struct Objects<T>(Mutex<HashMap<u64, Weak<T>>>);

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Objects<T> {
    /// The object of that handle, attached by `attach` unless it is attached already. Two threads
    /// that ask at once get the same one.
    pub(crate) fn get_or_attach(
        &self,
        handle: u64,
        attach: impl FnOnce() -> Result<Option<T>, Error>,
    ) -> Result<Option<Arc<T>>, Error> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(object) = map.get(&handle).and_then(Weak::upgrade) {
            return Ok(Some(object));
        }
        let Some(object) = attach()? else { return Ok(None) };
        let object = Arc::new(object);
        map.retain(|_, object| object.strong_count() > 0);
        map.insert(handle, Arc::downgrade(&object));
        Ok(Some(object))
    }

    /// Whether there is an object of which `test` says so.
    pub(crate) fn any(&self, test: impl Fn(&T) -> bool) -> bool {
        let all: Vec<_> = {
            let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            map.values().filter_map(Weak::upgrade).collect()
        };
        // The lock is free: an object that goes with one of these detaches itself.
        all.iter().any(|object| test(object))
    }

    /// Enters an object that this process has just created, before anybody else can know its
    /// handle.
    pub(crate) fn add(&self, handle: u64, object: T) -> Arc<T> {
        let object = Arc::new(object);
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert(handle, Arc::downgrade(&object));
        object
    }
}
