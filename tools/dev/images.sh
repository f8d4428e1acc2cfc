#!/bin/bash
# Makes the guests' images: images.sh [NAME...] leaves build/images/NAME/{vmlinuz,vmlinux,initrd}.
source "$(dirname "$0")/common.sh"

[ $# -gt 0 ] || set -- $kernels_known
"$root/tools/dev/install.sh" boot
"$root/tools/dev/kernels.sh" "$@"
for name; do
  "$root/tools/dev/pack_initrd.sh" "$name" "$root/tools/guest/init" "$root/tools/guest/modules.list" \
    "$images/$name/initrd"
done
