#!/bin/bash
# Fetches stock Debian kernels: kernels.sh [NAME...] (cloud12, generic12, cloud13; default all).
#
# Leaves build/images/NAME/{vmlinuz,vmlinux,release} and the unpacked package in build/images/NAME/root.
# APT runs with folders of its own, so neither the machine's package lists nor its installed packages
# play a part, and a kernel of another Debian release is as good as our own.
source "$(dirname "$0")/common.sh"

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
fetch_dir=$images/.apt

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

# The addresses that this machine's own APT sources give for Debian itself (not its security or
# third-party archives). APT prints them for either format of sources file without any network.
mirrors() {
  apt-get update --print-uris 2>/dev/null |
    sed -nE "s|^'([^']*)/dists/(bookworm\|trixie\|forky\|sid\|oldstable\|stable\|testing\|unstable)/InRelease'.*|\1|p" |
    sort -u
}

# apt SUITE ARGS...: apt-get on the one suite, in folders of its own.
apt_in() {
  local suite=$1 dir=$fetch_dir/$1
  shift
  apt-get -qq -o Dir::State="$dir/state" -o Dir::State::Lists="$dir/lists" \
    -o Dir::State::status="$dir/status" -o Dir::Cache="$dir/cache" \
    -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
    -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Sandbox::User=root \
    -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

update_suite() {
  local suite=$1 dir=$fetch_dir/$1 mirror options log
  mkdir -p "$dir"/{state,lists/partial,cache/archives/partial}
  : > "$dir/status"
  log=$dir/update.log
  for mirror in $(mirrors); do
    options="signed-by=$keyring"
    # A mirror frozen at a date serves an index that has run out on purpose.
    [[ $mirror =~ [0-9]{8}T[0-9]{6}Z ]] && options+=" check-valid-until=no"
    echo "deb [$options] $mirror $suite main" > "$dir/sources.list"
    if apt_in "$suite" update -o APT::Update::Error-Mode=any >"$log" 2>&1; then return; fi
  done
  [ -e "$log" ] || die "this machine's APT sources name no Debian mirror" \
    "add one to /etc/apt/sources.list: kernels for the guests come from there"
  sed 's/^/  apt: /' "$log" >&2
  die "no mirror of this machine's APT sources serves Debian '$suite'" \
    "check the network and the proxy, or add a mirror that has it to /etc/apt/sources.list"
}

# The package a meta package stands for: the newest linux-image-VERSION it depends on.
real_package_of() {
  local dir=$fetch_dir/$1
  apt-cache -o Dir::State="$dir/state" -o Dir::State::Lists="$dir/lists" \
    -o Dir::State::status="$dir/status" -o Dir::Cache="$dir/cache" \
    -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o APT::Architecture=amd64 -o APT::Architectures=amd64 show --no-all-versions "$2" |
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
  (cd "$new" && apt_in "$suite" download "$package" >"$fetch_dir/download.log" 2>&1) ||
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
  mkdir -p "$images"
  # Two commands started at once must not fetch into one folder.
  exec 9> "$images/.lock"
  flock 9
  [ -e "$images/$name/vmlinux" ] || fetch "$name"
  exec 9>&-
done
