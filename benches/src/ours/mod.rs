//! Our contestants, and where they live.

pub mod area;
pub mod chance;
pub mod home;
pub mod table;
