#!/bin/bash
# Fetches stock Debian kernels: kernels.sh [NAME...] (cloud12, generic12, cloud13; default all).
#
# Leaves build/images/NAME/{vmlinuz,vmlinux,release} and the unpacked package in build/images/NAME/root.
source "$(dirname "$0")/common.sh"
source "$root/tools/dev/apt_suite.sh"

suite_of() {
  case $1 in
    *12) echo bookworm ;;
    *13) echo trixie ;;
  esac
}

meta_package_of() {
  case $1 in
    cloud*) echo linux-image-cloud-amd64 ;;
    generic*) echo linux-image-amd64 ;;
  esac
}

# The package a meta package stands for: the newest linux-image-VERSION it depends on.
real_package_of() {
  apt_in "$1" apt-cache show --no-all-versions "$2" |
    sed -nE 's/^Depends:.*(linux-image-[0-9][^ ,]*).*/\1/p' | head -n 1
}

fetch() {
  local name=$1 suite meta package new kernel
  suite=$(suite_of "$name")
  meta=$(meta_package_of "$name")
  say "fetching kernel $name ($meta of Debian $suite)"
  update_suite "$suite"
  package=$(real_package_of "$suite" "$meta")
  [ -n "$package" ] || die "$meta of Debian $suite names no kernel package" \
    "remove $fetch_dir and try again: the package list there may be damaged"
  new=$images/.$name.new
  rm -rf "$new"
  mkdir -p "$new"
  (cd "$new" && apt_in "$suite" apt-get download "$package" >"$fetch_dir/download.log" 2>&1) ||
    die "cannot download $package: $(tail -n 1 "$fetch_dir/download.log")" "check the network, then try again"
  dpkg-deb -x "$new"/*.deb "$new/root"
  rm "$new"/*.deb
  # Newer packages keep their modules in /usr/lib: the module tools look in /lib.
  [ -e "$new/root/lib" ] || ln -s usr/lib "$new/root/lib"
  kernel=$(cd "$new/root/boot" && ls vmlinuz-*)
  echo "${kernel#vmlinuz-}" > "$new/release"
  mv "$new/root/boot/$kernel" "$new/vmlinuz"
  "$root/tools/dev/vmlinux.sh" "$new/vmlinuz" "$new/vmlinux"
  depmod -b "$new/root" "${kernel#vmlinuz-}"
  rm -rf "${images:?}/$name"
  mv "$new" "$images/$name"
}

[ $# -gt 0 ] || set -- $kernels_known
for name; do
  [[ " $kernels_known " == *" $name "* ]] || usage_error "unknown kernel '$name': one of $kernels_known"
  [ -e "$images/$name/vmlinux" ] && continue
  only_one
  [ -e "$images/$name/vmlinux" ] || fetch "$name"
done
