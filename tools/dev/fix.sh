#!/bin/bash
# Formats all sources.
source "$(dirname "$0")/common.sh"
source "$root/tools/dev/sources.sh"

[ $# -eq 0 ] || usage_error "fix takes no option"
"$root/tools/dev/install.sh" build check
cd "$root"
all_sources | xargs -r clang-format-19 -i
