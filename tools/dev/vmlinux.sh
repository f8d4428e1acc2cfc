#!/bin/bash
# Extracts the ELF kernel from a bzImage: vmlinux.sh BZIMAGE OUTPUT.
#
# The setup header says where the compressed kernel lies (Linux boot protocol 2.08: payload_offset and
# payload_length), so nothing is searched for; its first bytes say how it is compressed.
source "$(dirname "$0")/common.sh"

[ $# -eq 2 ] || usage_error "vmlinux.sh needs BZIMAGE and OUTPUT"
image=$1
output=$2

# field OFFSET SIZE: an unsigned little-endian number of the image.
field() { od -An -v -j "$1" -N "$2" -t "u$2" "$image" | tr -d ' '; }

[ "$(od -An -c -j $((0x202)) -N 4 "$image" | tr -d " ")" = HdrS ] ||
  die "$image is no bzImage" "give a Linux kernel for x86 as Debian ships it"

start=$((($(field $((0x1f1)) 1) + 1) * 512 + $(field $((0x248)) 4)))
length=$(field $((0x24c)) 4)
magic=$(od -An -v -t x1 -j "$start" -N 6 "$image" | tr -d ' ')

# All but gzip carry the unpacked size in four bytes behind the stream.
case $magic in
  1f8b*) unpack="gzip -dc" trailer=0 ;;
  fd377a585a00) unpack="xz -dc" trailer=4 ;;
  28b52ffd*) unpack="zstd -dcq" trailer=4 ;;
  02214c18* | 04224d18*) unpack="lz4 -dcq" trailer=4 ;;
  7f454c46*) unpack=cat trailer=0 ;;
  *) die "$image: unknown kernel compression (magic $magic)" "use a kernel packed with gzip, xz, zstd or lz4" ;;
esac

dd if="$image" bs=64K iflag=skip_bytes,count_bytes skip="$start" count=$((length - trailer)) status=none |
  $unpack > "$output.new" ||
  die "$image: unpacking the kernel with '$unpack' failed" "fetch the kernel again: the file may be damaged"
[ "$(od -An -t x1 -N 4 "$output.new" | tr -d ' ')" = 7f454c46 ] ||
  die "$image: the unpacked kernel is no ELF file" "fetch the kernel again: the file may be damaged"
mv "$output.new" "$output"
