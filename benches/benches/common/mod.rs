//! Hands the works that `ratios` measures to criterion.

use benches::measure::Work;
use criterion::Criterion;

/// One group: a benchmark per work and contestant, called `work/contestant`.
pub(crate) fn group(criterion: &mut Criterion, name: &str, works: &[Work]) {
    let mut group = criterion.benchmark_group(name);
    // The works of a million entries take a second a sample; the others fit many into theirs.
    group.sample_size(10);
    for work in works {
        for mut contestant in work.contestants() {
            group.bench_function(format!("{}/{}", work.name, contestant.name), |bencher| {
                bencher.iter_custom(|operations| contestant.run(operations).scaled_to(operations));
            });
        }
    }
    group.finish();
}
