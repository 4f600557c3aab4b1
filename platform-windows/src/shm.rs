//! Sections of the page file: an option, for segments that somebody always holds.
//!
//! Large ones are reserved (`SEC_RESERVE`) and committed step by step by whichever process needs
//! the memory. Sizes beyond 4 GiB take both halves of the size arguments.
//!
//! Not implemented yet: no type here implements [`dsm_core::provider::SegmentProvider`].
