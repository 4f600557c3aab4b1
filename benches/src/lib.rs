//! Works that are measured beside peers, for the programs `ratios` and `instructions` and the
//! groups of criterion.
//!
//! | module | what it has |
//! |---|---|
//! | [`valgrind`] | how valgrind is told when to count |
//! | [`measure`] | how works are timed |
//! | [`interface`] | what a work asks of a contestant |
//! | [`ours`], [`peers`] | the contestants |
//! | [`work`] | what a work is, and how it is chosen by its name |
//! | [`works`] | the works |
//! | [`count`] | how their instructions are counted, and held to those on record |
//! | [`mod@reference`] | PostgreSQL's figures |
//!
//! Each module needs those above it only.

pub mod count;
pub mod interface;
pub mod measure;
pub mod ours;
pub mod peers;
pub mod reference;
pub mod valgrind;
pub mod work;
pub mod works;
