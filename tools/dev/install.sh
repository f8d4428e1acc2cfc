#!/bin/bash
# Installs what is missing of the named groups of tools/packages.list: install.sh [GROUP...] (default all).
# Group trixie is not for this machine's own Debian: testhost/unpacked.sh unpacks it.
source "$(dirname "$0")/common.sh"

list=$root/tools/packages.list
groups=$(awk '!/^#/ && NF && $1 != "trixie" {print $1}' "$list" | sort -u | tr '\n' ' ')
[ $# -gt 0 ] || set -- $groups

wanted=()
for group; do
  [[ " $groups" == *" $group "* ]] || usage_error "unknown package group '$group': one of $groups"
  while read -r package; do wanted+=("$package"); done < <(awk -v g="$group" '$1 == g {print $2}' "$list")
done

command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
  die "this machine has no apt-get" "use Debian 12 or newer, or install by hand: ${wanted[*]}"

# Complains of a package it has never heard of, which is then missing like any other.
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null || true)
missing=()
for package in "${wanted[@]}"; do
  [[ $'\n'$installed$'\n' == *$'\n'"installed $package"$'\n'* ]] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null ||
    die "packages are missing and we are not root" "as root: apt-get install ${missing[*]}"
  as_root=(sudo)
fi

say "installing ${missing[*]}"
log=$build/install.log
mkdir -p "$build"
# apt ARGS...: quiet unless it fails.
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=300 \
    -o Acquire::Retries=3 "$@" </dev/null >>"$log" 2>&1
}
: > "$log"
# A list that is out of date names versions the mirror no longer has: bring it up to date first, and let
# the installation judge (a third party's broken source is no business of ours).
apt update || say "apt-get update reports problems (build/install.log); trying all the same"
if ! apt install --no-install-recommends "${missing[@]}"; then
  grep -E '^(E|W|Err)' "$log" | sort -u | tail -n 8 >&2 || true
  die "apt-get could not install ${missing[*]}" \
    "look at $log; check the network and that the APT sources name Debian 12 or newer, main"
fi
