#!/bin/bash
# Takes a guest's console on its standard input, prints what the command named by crosvm.run= said, and
# exits with its status (tools/guest/init has the markers). 125: the console ended without them.
# Optional argument: a file that gets the whole console.
log=${1:-/dev/null}
state=before
newline=''
: > "$log"
while IFS= read -r line || [ -n "$line" ]; do
  line=${line%$'\r'}
  printf '%s\n' "$line" >> "$log"
  case $state in
    before) [ "$line" != "@@crosvm-begin@@" ] || state=within ;;
    within)
      if [[ $line =~ ^@@crosvm-exit\ ([0-9]+)@@$ ]]; then
        state=after
        status=${BASH_REMATCH[1]}
      else
        # The newline before the last marker is not part of the output.
        printf '%s%s' "$newline" "$line"
        newline=$'\n'
      fi ;;
  esac
done
exit "${status:-125}"
