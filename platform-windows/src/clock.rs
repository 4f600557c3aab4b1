//! Time: `QueryPerformanceCounter`, which only goes forward and agrees between processes.
//!
//! Not implemented yet: [`dsm_core::env::Clock`] has no implementation here.
