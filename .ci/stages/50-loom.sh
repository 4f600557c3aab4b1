# Models of the lock protocols, slots and elections: every interleaving, in a build in which loom
# replaces the atomics. In a target directory of its own because its flags change every crate;
# optimised, but not across crates, which would take longer than it saves.
# limit: 900
source "$CI_ROOT/.ci/lib.sh"
export RUSTFLAGS="--cfg loom"
export CARGO_TARGET_DIR="$CI_ROOT/target/loom"
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
for crate in dsm-core dsa-core dshash-core; do
    models=("$crate"/tests/loom*)
    if [ -e "${models[0]}" ]; then
        say cargo test --release -p "$crate" --test 'loom*'
    fi
done
# What two threads do to a truth byte, or a sequence word, without a lock.
say cargo test --release -p dsa-core -p dshash-core --lib model
say cargo run --release -p dsm-core --example loom_embedder
