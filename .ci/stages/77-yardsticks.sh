# Bugs that are planted on purpose, one at a time: each must be caught, or what should have caught it
# proves nothing. In target directories of their own, since the cfg changes every crate; optimised,
# but quickly built.
# limit: 1200
source "$CI_ROOT/.ci/lib.sh"
export RUSTFLAGS="--cfg dsm_planted"
say cargo build --profile yardsticks -p crash --target-dir target/planted
say timeout 900 target/planted/yardsticks/crash yardsticks
say .ci/leftovers.sh check
