# The fuzz targets: first their bodies as ordinary tests over fixed seeds, then each under libFuzzer
# for a few seconds. Long runs are for `cargo +nightly fuzz run TARGET` by hand.
# limit: 600
source "$CI_ROOT/.ci/lib.sh"
packages g++
say cargo clippy --manifest-path fuzz/Cargo.toml --all-targets -- -D warnings
say cargo test --manifest-path fuzz/Cargo.toml
tools="$CI_WORK/tools"
if [ ! -x "$tools/bin/cargo-fuzz" ]; then
    persist cargo install --locked --root "$tools" --version 0.13.2 cargo-fuzz
fi
export PATH="$tools/bin:$PATH"
say cargo +nightly fuzz build
for target in $(cargo +nightly fuzz list); do
    say cargo +nightly fuzz run "$target" -- -max_total_time=15 -timeout=60 -rss_limit_mb=4096
done
