# Kills a process at each store to shared memory of each operation, and judges every image: optimised,
# because it is the order of the stores in what ships that counts. All images of one death, in segments
# that come full of zeros, then of rubbish, and a sample of those of two and three; then real processes.
# Long runs: without --sample.
# limit: 1800
source "$CI_ROOT/.ci/lib.sh"
say cargo build --release -p crash
say timeout 600 target/release/crash images
say timeout 600 target/release/crash images --rubbish
say timeout 400 target/release/crash images --depth 2 --sample 5
say timeout 200 target/release/crash images --depth 3 --sample 2
say timeout 30 target/release/crash cost
say timeout 200 target/release/crash swarm --seconds 90 --seed 1
say timeout 100 target/release/crash swarm --seconds 30 --seed 2 --reaper
say .ci/leftovers.sh check
