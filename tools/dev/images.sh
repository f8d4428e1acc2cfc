#!/bin/bash
# Makes the guests' images: images.sh [NAME...] leaves build/images/NAME/{vmlinuz,vmlinux,initrd} of the kernels named
# (default all), and the root disk, which has modules for them: build/images/root/debian12.img.
source "$(dirname "$0")/common.sh"

[ $# -gt 0 ] || set -- $kernels_known
"$root/tools/dev/install.sh" boot
"$root/tools/dev/kernels.sh" "$@"
"$root/tools/dev/build.sh" --release guest_agent
for name; do
  "$root/tools/dev/pack_initrd.sh" "$name" "$root/tools/guest/init" "$root/tools/guest/modules.list" \
    "$images/$name/initrd" "$build/release/guest_agent"
done
"$root/tools/dev/rootdisk.sh"
