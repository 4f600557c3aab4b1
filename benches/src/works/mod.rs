//! The works, each described once.
//!
//! | module | works | peers |
//! |---|---|---|
//! | [`locks`] | a cycle of acquire and release | the C library's process-shared rwlock |
//! | [`segments`] | create, attach, destroy | bare system calls |
//! | [`registry`] | an attached name looked up again | four lock cycles of the C library |
//! | [`allocator`] | allocate, free, resolve | mimalloc, the C library's malloc |
//! | [`threads`] | churn, remote frees, two threads at once | the same |
//! | [`table`] | insert, find, update, delete | dashmap |

use crate::work::Work;

pub mod allocator;
pub mod locks;
pub mod registry;
pub mod segments;
pub mod table;
pub mod threads;

/// Every work of every group, in the order in which they are printed.
#[must_use]
pub fn all() -> Vec<Work> {
    [
        locks::works(),
        segments::works(),
        registry::works(),
        allocator::works(),
        threads::works(),
        table::works(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<String> = all().into_iter().map(|work| work.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    /// Runners judge themselves what they did.
    #[test]
    fn every_counted_contestant_does_what_is_asked() {
        for work in all() {
            let Some(lengths) = work.counted else { continue };
            for contestant in &work.contestants {
                let sample = contestant.set_up().run(lengths.short);
                assert!(sample.operations >= lengths.short, "{} {:?}", work.name, contestant.who);
            }
        }
    }
}
