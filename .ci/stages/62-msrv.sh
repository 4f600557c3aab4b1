# The libraries compile with the oldest compiler that they promise to: Debian 12 still has it in its
# main archive, under the version it once had. It is unpacked and not installed, since the compiler that other
# stages use is a later version of the same package.
# limit: 600
source "$CI_ROOT/.ci/lib.sh"
root="$CI_ROOT/target/msrv/root"
if [ ! -x "$root/usr/bin/rustc" ]; then
    packages ca-certificates
    version=$(persist apt-cache madison rustc-web | awk '$3 ~ /^1\.85\./ { print $3; exit }')
    if [ -z "$version" ]; then
        persist apt-get -q update
        version=$(apt-cache madison rustc-web | awk '$3 ~ /^1\.85\./ { print $3; exit }')
    fi
    mkdir -p "$root" "$root/../packages"
    (
        cd "$root/../packages"
        persist apt-get -q -o APT::Sandbox::User=root download "rustc-web=$version" \
            "libstd-rust-web-dev=$version" "libstd-rust-web-1.85=$version" libllvm19
        for package in *.deb; do dpkg -x "$package" "$root"; done
    )
fi
export LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu" RUSTC="$root/usr/bin/rustc"
export CARGO_TARGET_DIR="$CI_ROOT/target/msrv"
say "$RUSTC" --version
[[ $("$RUSTC" --version) == "rustc 1.85."* ]]
say cargo check -p dsm-core -p dsa-core -p dshash-core -p platform-common -p platform-posix \
    -p platform-windows -p dsm-registry -p dsm-sim
say cargo check -p dsm-core -p dsa-core -p dshash-core -p dsm-registry --all-features
