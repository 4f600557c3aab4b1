# Every public item is documented and every link in the documentation leads somewhere.
# limit: 300
source "$CI_ROOT/.ci/lib.sh"
export RUSTDOCFLAGS="-Dwarnings"
say cargo doc --workspace --no-deps --all-features
