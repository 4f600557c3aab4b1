# The cores build where there is no std to reach for. Debian's rustc-web comes with the sources of
# core, so cargo builds core itself for targets that rustup can't fetch here.
# limit: 600
source "$CI_ROOT/.ci/lib.sh"
packages rustc-web rust-web-src
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR="$CI_ROOT/target/bare"
for target in x86_64-unknown-none aarch64-unknown-none; do
    say cargo build -Zbuild-std=core --target "$target" \
        -p dsm-core -p dsa-core -p dshash-core --features dsm-core/lock_api
done
