//! platform-windows
