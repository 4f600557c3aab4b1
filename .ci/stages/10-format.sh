# The sources are formatted as rustfmt.toml says.
# limit: 60
source "$CI_ROOT/.ci/lib.sh"
say cargo fmt --all --check
say cargo fmt --manifest-path fuzz/Cargo.toml --check
