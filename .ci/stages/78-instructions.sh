# Counts the instructions of the hot paths in a processor that valgrind simulates: fails where one of
# ours takes over 3 % more than benches/instructions.json says. Machines with other work don't disturb
# it. With another compiler than that of the file it only tells.
# limit: 600
source "$CI_ROOT/.ci/lib.sh"
packages valgrind
say cargo build --release -p benches --bin instructions
say timeout 240 target/release/instructions --check
say .ci/leftovers.sh check
