# Sourced by the stages: stops at the first error, and knows how to get Debian packages.
set -euo pipefail
cd "$CI_ROOT"

# Says what is run, then runs it.
say() {
    printf '+ %s\n' "$*" >&2
    "$@"
}

# Package servers fail now and then: up to five attempts, waiting longer each time.
persist() {
    local attempt
    for attempt in 1 2 3 4 5; do
        "$@" && return
        echo "attempt $attempt failed: $*" >&2
        sleep $((attempt * 5))
    done
    return 1
}

# Installs Debian packages unless they are there.
packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok' \
            || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" != 0 ]; then
        echo "needs root to install: ${missing[*]}" >&2
        return 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    persist apt-get -q update
    persist apt-get -q -y --no-install-recommends install "${missing[@]}"
}
