//! Tests that need to see, or to stop, what is inside.

mod basic;
mod crash;
