//! What processes keep of areas in memory of their own, for cases that follow each other quickly.

use dsa_core::{AreaLocal, HeapLocal};

/// Does `work` with two empty tables of areas, which are too large to be made anew for each case.
pub(crate) fn with_tables(work: impl FnOnce(&[AreaLocal; 2])) {
    thread_local! {
        static TABLES: [AreaLocal; 2] = const { [AreaLocal::new(), AreaLocal::new()] };
    }
    TABLES.with(work);
}

/// Hints of a heap, which are its case's own: those of an earlier one could be taken for them.
pub(crate) fn hints() -> Box<HeapLocal> {
    Box::default()
}
