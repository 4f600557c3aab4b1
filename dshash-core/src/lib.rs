//! dshash-core
#![no_std]
