//! The operations whose victims are killed.

mod area;
mod area_kit;
mod lock;
mod namespace;
mod registry;
mod segment;
mod table;
mod table_kit;

use crate::case::Operation;

/// All of them.
pub(crate) fn all() -> Vec<&'static Operation> {
    [namespace::ALL, segment::ALL, lock::ALL, area::ALL, table::ALL, registry::ALL]
        .into_iter()
        .flatten()
        .collect()
}
