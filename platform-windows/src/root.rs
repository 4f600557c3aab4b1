//! The control object and its election: a named mutex, which reports when its owner died holding it.
//!
//! Not implemented yet: no type here implements [`dsm_core::provider::Root`].
