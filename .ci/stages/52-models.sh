# Models of several processes at once, one or two of which die, in many orders: locks, namespace, allocator, table and names as
# whole operations, under shuttle. In a build of their own, as those of loom; the lints look at
# what only that build compiles.
# limit: 900
source "$CI_ROOT/.ci/lib.sh"
say cargo run --release -p crash -- models --iterations 2000
export RUSTFLAGS="--cfg shuttle"
say cargo clippy -p dsm-core -p dsa-core -p dshash-core -p dsm-registry -p dsm-sim -p models --lib --bins \
    --target-dir target/shuttle -- -D warnings
