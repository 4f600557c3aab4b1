# The README's first command: workers count words, three of them are killed, the count is right.
# limit: 600
source "$CI_ROOT/.ci/lib.sh"
say cargo build --release -p dsm-cli
result="$CI_WORK/demo.json"
say cargo run --release -p dsm-cli -- demo --kills 3 --json >"$result"
cat "$result"
grep -Eq '"verified": *true' "$result"
grep -Eq '"killed": *3' "$result"
grep -Eq '"leaked_bytes": *0[,}[:space:]]' "$result"
say .ci/leftovers.sh check
