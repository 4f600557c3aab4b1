# 32-bit programs, which this machine runs natively: see .ci/linux.
# limit: 1200
source "$CI_ROOT/.ci/lib.sh"
say .ci/linux i686
say .ci/leftovers.sh check
