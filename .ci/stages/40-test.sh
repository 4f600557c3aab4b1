# The README's second command. Built first, so that no compiler competes with processes whose
# waits and deaths are being tested, and to the end, so that one run tells everything; then nothing
# may be left behind.
# limit: 1200
source "$CI_ROOT/.ci/lib.sh"
say cargo test --workspace --no-run
say cargo test --workspace --no-fail-fast
say .ci/leftovers.sh check
