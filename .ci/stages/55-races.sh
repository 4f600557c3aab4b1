# Locks, allocator and table under the thread sanitizer. What is a formal data race on purpose (an
# optimistic read, a scan of sixteen truth bytes) is replaced in this build by locks and by loads of
# single bytes.
# limit: 400
source "$CI_ROOT/.ci/lib.sh"
export RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer --cfg dsm_tsan"
export CARGO_TARGET_DIR="$CI_ROOT/target/races"
export TSAN_OPTIONS="suppressions=$CI_ROOT/.ci/thread-sanitizer.supp"
test=(cargo +nightly test --target x86_64-unknown-linux-gnu)
say "${test[@]}" -p dsm-core --test locks
say "${test[@]}" -p dsa-core --test area threads
say "${test[@]}" -p dshash-core --features locked-reads --test table threads
