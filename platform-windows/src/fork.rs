//! Windows has no fork. The module holds what takes its place elsewhere: the memory for tokens of
//! threads and processes, which is plain memory here.
//!
//! Not implemented yet.
