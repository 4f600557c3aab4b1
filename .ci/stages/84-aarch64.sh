# Programs for 64-bit ARM in qemu's user mode: see .ci/linux.
# limit: 1200
source "$CI_ROOT/.ci/lib.sh"
say .ci/linux aarch64
say .ci/leftovers.sh check
