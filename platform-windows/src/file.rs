//! Sections over temporary files (`FILE_ATTRIBUTE_TEMPORARY`): the default.
//!
//! A section of the page file goes with its last handle, so that a segment which nobody but its creator has
//! attached would go with its creator. A file stays until its name is removed, and
//! its pages are not written to disk while memory lasts.
//!
//! Not implemented yet: no type here implements [`dsm_core::provider::SegmentProvider`].
