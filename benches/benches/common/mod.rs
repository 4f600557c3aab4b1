//! Hands the works that `ratios` measures to criterion.

use benches::work::Work;
use criterion::Criterion;

/// One group: a benchmark per work and contestant, called `work/contestant`.
pub(crate) fn group(criterion: &mut Criterion, name: &str, works: &[Work]) {
    let mut group = criterion.benchmark_group(name);
    // The works of a million entries take a second a sample; the others fit many into theirs.
    group.sample_size(10);
    for work in works {
        for contestant in work.timed() {
            let mut runner = contestant.set_up();
            group.bench_function(format!("{}/{}", work.name, contestant.who.name()), |bencher| {
                bencher.iter_custom(|operations| runner.run(operations).scaled_to(operations));
            });
        }
    }
    group.finish();
}
