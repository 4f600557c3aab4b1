//! platform-posix
