# Sourced: packages of any Debian release, unpacked beside us and never installed.
#
# APT runs with folders of its own, so neither the machine's package lists nor its installed packages play a
# part, and a package of another release is as good as our own. Signatures are checked all the same.

debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg
fetch_dir=$build/images/.apt

# The addresses that this machine's own APT sources give for Debian itself (not its security or
# third-party archives). APT prints them for either format of sources file without any network.
mirrors() {
  apt-get update --print-uris 2>/dev/null |
    sed -nE "s|^'([^']*)/dists/(bookworm\|trixie\|forky\|sid\|oldstable\|stable\|testing\|unstable)/InRelease'.*|\1|p" |
    sort -u
}

# apt_in SUITE TOOL ARGS...: an APT tool on the one suite, as if nothing were installed.
apt_in() {
  local dir=$fetch_dir/$1 tool=$2
  shift 2
  "$tool" -qq -o Dir::State="$dir/state" -o Dir::State::Lists="$dir/lists" \
    -o Dir::State::status="$dir/status" -o Dir::Cache="$dir/cache" \
    -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
    -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Sandbox::User=root \
    -o Acquire::Languages=none -o Acquire::Retries=3 -o Debug::NoLocking=1 "$@"
}

# update_suite SUITE: fetches its package lists.
update_suite() {
  local suite=$1 dir=$fetch_dir/$1 mirror options log
  mkdir -p "$dir"/{state,lists/partial,cache/archives/partial}
  : > "$dir/status"
  log=$dir/update.log
  for mirror in $(mirrors); do
    options="signed-by=$debian_keyring"
    # A mirror frozen at a date serves an index that has run out on purpose.
    [[ $mirror =~ [0-9]{8}T[0-9]{6}Z ]] && options+=" check-valid-until=no"
    echo "deb [$options] $mirror $suite main" > "$dir/sources.list"
    if apt_in "$suite" apt-get update -o APT::Update::Error-Mode=any >"$log" 2>&1; then return; fi
  done
  [ -e "$log" ] || die "this machine's APT sources name no Debian mirror" \
    "add one to /etc/apt/sources.list: what the guests and the test host need comes from there"
  sed 's/^/  apt: /' "$log" >&2
  die "no mirror of this machine's APT sources serves Debian '$suite'" \
    "check the network and the proxy, or add a mirror that has it to /etc/apt/sources.list"
}

# fetch_closure SUITE PACKAGE DIR: unpacks a package and all it depends on into DIR.
fetch_closure() {
  local suite=$1 package=$2 to=$3 log=$fetch_dir/$1/download.log archive
  rm -f "$fetch_dir/$suite"/cache/archives/*.deb
  apt_in "$suite" apt-get -y --no-install-recommends --download-only install "$package" >"$log" 2>&1 ||
    die "cannot download $package of Debian $suite: $(tail -n 1 "$log")" "check the network, then try again"
  mkdir -p "$to"
  for archive in "$fetch_dir/$suite"/cache/archives/*.deb; do dpkg-deb -x "$archive" "$to"; done
  rm -f "$fetch_dir/$suite"/cache/archives/*.deb
}

# only_one NAME: waits until no other command of this tree fetches, until our end.
only_one() {
  mkdir -p "$build/images"
  exec 9> "$build/images/.lock"
  flock 9
}
