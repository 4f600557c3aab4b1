//! Criterion group `locks`.

use criterion::{Criterion, criterion_group, criterion_main};

#[path = "common/mod.rs"]
mod common;

fn locks(criterion: &mut Criterion) {
    common::group(criterion, "locks", &benches::works::locks::works());
}

criterion_group!(group, locks);
criterion_main!(group);
