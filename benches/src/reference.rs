//! Figures of PostgreSQL, for a sense of scale.
//!
//! Taken once, by a C extension inside a backend of a private server; they are not measured again
//! in a run, and so are good for the order of magnitude only, on another machine than theirs.

/// What PostgreSQL's own functions take for a work, in nanoseconds; `None` if nobody has measured.
#[must_use]
pub fn postgresql(work: &str) -> Option<f64> {
    Some(match work {
        // dsm_create and dsm_detach in min_dynamic_shared_memory.
        "segment_main_region" => 52.0,
        // GetNamedDSMSegment of a name that is attached, among as many.
        "registry_lookup_1" => 29.0,
        "registry_lookup_100" => 100.0,
        // dsa_allocate and dsa_free; dsa_get_address.
        "alloc_lifo_64" => 30.0,
        "resolve" => 2.75,
        // dshash with entries of 64 bytes.
        "map_insert_1M" => 282.0,
        "map_hit_1M" => 189.0,
        "map_miss_1M" => 119.0,
        "map_update_1M" => 180.0,
        "map_delete_insert_1M" => 581.0,
        "map_hit_1k" => 22.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_figure_is_of_a_work() {
        let works = crate::works();
        let known = works.iter().filter(|work| super::postgresql(&work.name).is_some());
        assert_eq!(known.count(), 11);
    }
}
