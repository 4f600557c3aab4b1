# What Windows runs, under Wine: see ci/windows.
# limit: 900
source "$CI_ROOT/.ci/lib.sh"
say ci/windows
