//! dsa-core
#![no_std]
