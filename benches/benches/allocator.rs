//! Criterion group `allocator`.

use criterion::{Criterion, criterion_group, criterion_main};

#[path = "common/mod.rs"]
mod common;

fn allocator(criterion: &mut Criterion) {
    common::group(criterion, "allocator", &benches::works::allocator::works());
}

criterion_group!(group, allocator);
criterion_main!(group);
