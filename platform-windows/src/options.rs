//! Options: whether sections lie in files or in the page file, and in which of the system's name spaces.
//!
//! Not implemented yet.
