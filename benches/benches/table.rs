//! Criterion group `table`.

use criterion::{Criterion, criterion_group, criterion_main};

#[path = "common/mod.rs"]
mod common;

fn table(criterion: &mut Criterion) {
    common::group(criterion, "table", &benches::works::table::works());
}

criterion_group!(group, table);
criterion_main!(group);
