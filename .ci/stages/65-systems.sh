# What runs on systems that are not at hand is at least compiled for them, tests included: no linker
# needed, and std is checked from Debian's sources. `benches` needs a C compiler for the system, the rooms of
# `crash` are for x86-64 Linux. What the compiler warns of there, the linter doesn't see here.
# limit: 900
source "$CI_ROOT/.ci/lib.sh"
packages rustc-web rust-web-src binutils-mingw-w64-x86-64
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR="$CI_ROOT/target/bare"
log="$CI_WORK/systems.log"
for target in x86_64-unknown-freebsd aarch64-apple-darwin; do
    say cargo check -Zbuild-std=std,panic_unwind,test --target "$target" --workspace --all-targets \
        --exclude benches --exclude crash --exclude images --exclude swarm --exclude yardsticks 2>&1 | tee "$log"
    if grep '^warning: `' "$log"; then exit 1; fi
done
say cargo check -Zbuild-std=std,panic_abort --target x86_64-pc-windows-gnu \
    -p platform-windows -p dsm-registry
