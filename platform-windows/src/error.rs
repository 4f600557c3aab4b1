//! Errors: a call, the object it was made for, and the system's code.
//!
//! Two traps belong here. `CreateFileMapping` succeeds on an existing object and says so only through
//! the last error, which must be cleared before the call; and `ERROR_ACCESS_DENIED` for a name
//! that is taken by an object of another kind or user counts as a collision, not as a refusal.
//!
//! Not implemented yet: there is no error type here.
