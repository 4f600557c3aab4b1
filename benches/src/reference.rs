//! Figures of PostgreSQL, to be held against ours.
//!
//! Taken once, by a C extension inside a backend of a private server (15.20 as Debian builds it,
//! POSIX shared memory, no huge pages, thread CPU time, median of five samples), on the machine
//! that `docs/BENCHMARKS.md` describes. They are not measured again in a run: on another machine
//! they are good for the order of magnitude only.

/// What PostgreSQL's own functions take for a work, in nanoseconds; `None` if nobody has measured.
#[must_use]
pub fn postgresql(work: &str) -> Option<f64> {
    Some(match work {
        // LWLockAcquire and LWLockRelease.
        "lock_shared" => 21.1,
        "lock_exclusive" => 21.0,
        // dsa_allocate and dsa_free; dsa_get_address.
        "alloc_lifo_64" => 55.4,
        "alloc_random_64" => 55.5,
        "resolve" => 2.72,
        // dshash with entries of 64 bytes; it has one way to read, under a shared lock.
        "map_insert_1k" => 142.0,
        "map_hit_1k" | "map_find_1k" => 29.5,
        "map_miss_1k" | "map_find_miss_1k" => 25.5,
        "map_update_1k" => 29.7,
        "map_delete_insert_1k" => 120.0,
        "map_insert_1M" => 286.0,
        "map_hit_1M" | "map_find_1M" => 188.0,
        "map_miss_1M" | "map_find_miss_1M" => 112.0,
        "map_update_1M" => 195.0,
        "map_delete_insert_1M" => 681.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_figure_is_of_a_work() {
        let works = crate::works::all();
        let known = works.iter().filter(|work| super::postgresql(&work.name).is_some());
        assert_eq!(known.count(), 19);
    }
}
