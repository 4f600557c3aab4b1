//! Criterion group `registry`.

use criterion::{Criterion, criterion_group, criterion_main};

#[path = "common/mod.rs"]
mod common;

fn registry(criterion: &mut Criterion) {
    common::group(criterion, "registry", &benches::works::registry::works());
}

criterion_group!(group, registry);
criterion_main!(group);
