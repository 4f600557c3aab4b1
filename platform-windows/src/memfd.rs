//! Sections without names, whose handles are duplicated into other processes beforehand.
//!
//! Not implemented yet: no type here implements [`dsm_core::provider::SegmentProvider`].
