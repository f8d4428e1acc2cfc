#!/bin/bash
# The large counts: soak.sh [NAME] runs tools/soak/NAME.sh, or all of them. Logs stay in build/soak.
source "$(dirname "$0")/common.sh"

known=$(cd "$root/tools/soak" && ls -- *.sh | sed 's/\.sh$//' | tr '\n' ' ')
names=($known)
if [ $# -gt 0 ]; then names=("$1"); shift; fi
for name in "${names[@]}"; do
  [ -x "$root/tools/soak/$name.sh" ] || usage_error "no soak '$name': one of $known"
  "$root/tools/soak/$name.sh" "$@"
done
