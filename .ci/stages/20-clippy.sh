# No warning in any target of any crate, with every optional feature on and with the defaults.
# limit: 900
source "$CI_ROOT/.ci/lib.sh"
say cargo clippy --workspace --all-targets -- -D warnings
say cargo clippy --workspace --all-targets --all-features -- -D warnings
