//! Our contestants, and where they live.

pub mod home;
