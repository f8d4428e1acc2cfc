#!/bin/bash
# A folder of src includes only itself and folders above it: the order is here, lowest first.
# No KVM structure is known above src/hypervisor/kvm. No streams in what crosvm is linked of.
set -euo pipefail
cd "$(dirname "$0")/.."

order="base memory hypervisor arch platform pci virtio vhost disk jail devices control vmm cli"
status=0

complain() {
  printf 'layering: %s\n' "$*"
  status=1
}

# position FOLDER: its place in the order, nothing when it has none.
position() {
  local place=0 each
  for each in $order; do
    place=$((place + 1))
    [ "$each" != "$1" ] || { echo "$place"; return; }
  done
}

for folder in src/*/; do
  folder=$(basename "$folder")
  [ -n "$(position "$folder")" ] || complain "src/$folder has no place in the order: add it in $0"
done

while IFS=: read -r file line included; do
  folder=${file#src/}
  folder=${folder%%/*}
  target=${included#*\"}
  target=${target%%/*}
  mine=$(position "$folder")
  theirs=$(position "$target")
  [ -n "$mine" ] && [ -n "$theirs" ] || continue
  [ "$theirs" -le "$mine" ] ||
    complain "$file:$line: src/$folder must not include src/$target, which stands above it ($order)"
done < <(grep -rnE '^#include "[a-z0-9_]+/' src --include='*.h' --include='*.cc' || true)

while IFS=: read -r file line _; do
  complain "$file:$line: only src/hypervisor/kvm may include <linux/kvm.h>"
done < <(grep -rnE '^#include <(linux|asm)/kvm' src --include='*.h' --include='*.cc' | grep -v '^src/hypervisor/kvm/' || true)

while IFS=: read -r file line included; do
  complain "$file:$line: ${included#'#include '} would bring the locales of the C++ library into crosvm (docs/adr/0010)"
done < <(grep -rnE '^#include <(iostream|fstream|sstream|locale|regex)>' src --include='*.cc' |
  grep -vE '_test\.cc:|/rig/' || true)

exit $status
