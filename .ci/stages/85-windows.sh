# What Windows runs, under Wine: see .ci/windows. Its own code is linted here, as the other stages don't see it.
# limit: 1500
source "$CI_ROOT/.ci/lib.sh"
say .ci/windows
say .ci/windows cargo clippy -p platform-windows --all-targets -- -Dwarnings
