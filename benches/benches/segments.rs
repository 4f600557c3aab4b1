//! Criterion group `segments`.

use criterion::{Criterion, criterion_group, criterion_main};

#[path = "common/mod.rs"]
mod common;

fn segments(criterion: &mut Criterion) {
    common::group(criterion, "segments", &benches::works::segments::works());
}

criterion_group!(group, segments);
criterion_main!(group);
