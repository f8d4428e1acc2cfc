# Sourced, after ../dev/common.sh: programs of Debian 13 for the test host. Their packages (group trixie of
# tools/packages.list) and libraries are unpacked, not installed, and run by their own dynamic linker.

# fetch_unpacked PACKAGE DIR: gets it, unless DIR is there.
fetch_unpacked() {
  local package=$1 unpacked=$2
  [ ! -d "$unpacked" ] || return 0
  awk -v p="$package" '$1 == "trixie" && $2 == p {found = 1} END {exit !found}' "$root/tools/packages.list" ||
    die "tools/packages.list has no package $package in group trixie" "name it there, with its reason"
  source "$root/tools/dev/apt_suite.sh"
  only_one
  [ ! -d "$unpacked" ] || return 0
  say "fetching $package of Debian trixie for the test host"
  update_suite trixie
  rm -rf "$unpacked.new"
  fetch_closure trixie "$package" "$unpacked.new"
  mv "$unpacked.new" "$unpacked"
}

# exec_unpacked DIR PROGRAM ARGUMENT...: becomes DIR's PROGRAM.
exec_unpacked() {
  local unpacked=$1 program=$2
  shift 2
  exec "$unpacked/usr/lib64/ld-linux-x86-64.so.2" --library-path "$unpacked/usr/lib/x86_64-linux-gnu" \
    "$unpacked/usr/bin/$program" "$@"
}
