#!/bin/bash
# Makes the guests' initrds: initrd.sh [NAME...] leaves build/images/NAME/initrd, fetching kernels first.
source "$(dirname "$0")/common.sh"

[ $# -gt 0 ] || set -- $kernels_known
"$root/tools/dev/kernels.sh" "$@"
for name; do
  "$root/tools/dev/pack_initrd.sh" "$name" "$root/tools/guest/init" "$root/tools/guest/modules.list" \
    "$images/$name/initrd"
done
