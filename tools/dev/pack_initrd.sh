#!/bin/bash
# Packs an initrd: pack_initrd.sh KERNEL INIT MODULES OUTPUT [PROGRAM].
#
# KERNEL is a name of build/images, INIT the script that runs as /init, MODULES a list of module names, PROGRAM an
# executable that becomes /bin/NAME, without its symbols. The initrd holds a static busybox, /init, and the modules with
# what they depend on as plain /modules/*.ko, in the order of /modules/order; those behind a line [GROUP] of the list in
# that of /modules/GROUP, without what stood before. Needs no privilege: init mounts devtmpfs for its nodes.
# Does nothing when OUTPUT is newer than all it is made of.
source "$(dirname "$0")/common.sh"

[ $# -eq 4 ] || [ $# -eq 5 ] || usage_error "pack_initrd.sh needs KERNEL, INIT, MODULES and OUTPUT"
kernel=$images/$1
init=$2
modules=$3
output=$4
program=${5:-}
release=$(cat "$kernel/release")
busybox=$(command -v busybox) || die "busybox is not installed" "run ./dev install boot"

newest=$(ls -t "$output" "$init" "$modules" "$kernel/release" "$busybox" ${program:+"$program"} "$0" 2>/dev/null | head -n 1 || true)
[ "$newest" = "$output" ] && exit 0

staging=$(mktemp -d "$images/.initrd.XXXXXX")
trap 'rm -rf "$staging"' EXIT
chmod 755 "$staging"
mkdir -p "$staging"/{bin,dev,proc,sys,tmp,run,root,etc,modules}
cp "$busybox" "$staging/bin/busybox"
ln -s busybox "$staging/bin/sh"
install -m 755 "$init" "$staging/init"
[ -z "$program" ] || strip -o "$staging/bin/${program##*/}" "$program"

# module_files NAME: the file of a module after those it depends on; nothing when built in.
module_files() {
  modprobe -d "$kernel/root" -S "$release" --show-depends "$1" 2>&1 | sed -n 's/^insmod \([^ ]*\).*/\1/p'
}

# A module is named by both spellings of its dashes; either finds it.
exists() {
  modinfo -b "$kernel/root" -k "$release" "$1" >/dev/null 2>&1
}

order=order
while read -r name _; do
  [[ $name == "" || $name == \#* ]] && continue
  if [[ $name =~ ^\[([a-z]+)\]$ ]]; then
    order=${BASH_REMATCH[1]}
    continue
  fi
  exists "$name" || die "kernel $1 has no module '$name'" "correct $modules"
  for file in $(module_files "$name"); do
    plain=$(basename "${file%.xz}")
    [ -e "$staging/modules/$plain" ] && continue
    case $file in
      *.xz) xz -dc "$file" > "$staging/modules/$plain" ;;
      *) cp "$file" "$staging/modules/$plain" ;;
    esac
    echo "$plain" >> "$staging/modules/$order"
  done
done < "$modules"

# The same input gives the same bytes.
find "$staging" -exec touch -h -d @0 {} +
(cd "$staging" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --reproducible --quiet) > "$output.$$"
mv "$output.$$" "$output"
