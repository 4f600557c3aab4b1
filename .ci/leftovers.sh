#!/usr/bin/env bash
# What tests and demos must not leave behind: objects in /dev/shm, System V segments, and processes
# started from this checkout. `remember` notes what was there before, `check` fails if there is more.
set -euo pipefail

objects() {
    find /dev/shm -mindepth 1 -printf '/dev/shm/%P\n'
    awk 'NR > 1 { print "System V segment " $2 " of uid " $8 }' /proc/sysvipc/shm
}

processes() {
    local exe
    for exe in /proc/[0-9]*/exe; do
        local of
        of=$(readlink "$exe" 2>/dev/null) || continue
        case $of in
            "$CI_ROOT"/target/* | "$CI_ROOT"/fuzz/target/*)
                echo "process $(basename "$(dirname "$exe")") running $of"
                ;;
        esac
    done
}

case ${1:-} in
    remember)
        objects | sort >"$CI_WORK/objects.before"
        ;;
    check)
        left=$(objects | sort | comm -13 "$CI_WORK/objects.before" -)
        running=$(processes)
        if [ -n "$left$running" ]; then
            printf 'left behind:\n%s\n%s\n' "$left" "$running" >&2
            exit 1
        fi
        echo "nothing left behind in shared memory, no process left running"
        ;;
    *)
        echo "usage: leftovers.sh remember | check" >&2
        exit 2
        ;;
esac
