//! The operations whose victims are killed.

mod area;
mod area_kit;
pub mod cost;
mod entries;
mod foreign;
mod fork;
mod lock;
mod moving;
mod namespace;
mod nobodys;
mod objects;
mod place;
mod publish;
mod registry;
mod segment;
mod table;
mod table_kit;
mod thread;
mod untyped;

use crate::case::Operation;

/// All of them.
pub(crate) fn all() -> Vec<&'static Operation> {
    let parts = [
        namespace::ALL,
        segment::ALL,
        lock::ALL,
        foreign::ALL,
        area::ALL,
        nobodys::ALL,
        place::ALL,
        publish::ALL,
        moving::ALL,
        table::ALL,
        entries::ALL,
        untyped::ALL,
        registry::ALL,
        thread::ALL,
        fork::ALL,
    ];
    parts.into_iter().flatten().collect()
}
