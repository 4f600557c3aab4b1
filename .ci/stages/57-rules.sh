# The registry by the language's own rules of who may refer to what, judged by Miri, over the simulated
# machine. Its memory models are left out: they don't know words of two widths in one place, nor
# addresses that are kept as numbers.
# limit: 600
source "$CI_ROOT/.ci/lib.sh"
rustup +nightly component list --installed | grep -q '^miri' \
    || persist rustup +nightly component add miri rust-src
export CARGO_TARGET_DIR="$CI_ROOT/target/rules"
export MIRIFLAGS="-Zmiri-permissive-provenance -Zmiri-disable-isolation \
    -Zmiri-disable-data-race-detector -Zmiri-disable-weak-memory-emulation"
say cargo +nightly miri test -p dsm-registry --test rules
