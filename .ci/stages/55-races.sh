# Allocator and table, and with them the locks, under the thread sanitizer. What is a formal data race on purpose (an
# optimistic read, a scan of sixteen truth bytes) is replaced in this build by locks and by loads of
# single bytes.
#
# The standard library that comes with the compiler is not instrumented: the sanitizer does not see
# that ending a thread happens before joining it, and reports what a test does after its threads
# have ended, from inside std. So a report counts if the code that it points at is ours.
# limit: 600
source "$CI_ROOT/.ci/lib.sh"
export RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer --cfg dsm_tsan"
export CARGO_TARGET_DIR="$CI_ROOT/target/races"
export TSAN_OPTIONS="exitcode=0"
log="$CI_WORK/races.log"

sanitize() {
    say cargo +nightly test --target x86_64-unknown-linux-gnu "$@" >"$log" 2>&1 \
        || { cat "$log"; return 1; }
    grep '^test ' "$log"
    if grep '^SUMMARY: ThreadSanitizer' "$log" | grep -F " $CI_ROOT/"; then
        cat "$log"
        return 1
    fi
}

sanitize -p dsa-core --test area threads
sanitize -p dshash-core --features locked-reads --test table threads
