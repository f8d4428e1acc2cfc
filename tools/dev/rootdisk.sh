#!/bin/bash
# Makes the guests' root disk, build/images/root/debian12.img: rootdisk.sh.
#
# A small Debian 12 from the packages of tools/guest/disk_packages.list and what they depend on, the files of
# tools/guest/rootfs, and, for each kernel fetched so far, the modules of tools/guest/disk_modules.list. Packages are
# unpacked and never configured: no maintainer script, chroot or mount, so a plain container will do. What the
# scripts would have made, `configure` makes. Does nothing when all it is made of is as it was.
source "$(dirname "$0")/common.sh"
source "$root/tools/dev/apt_suite.sh"

umask 022
guest=$root/tools/guest
disk=$images/root/debian12.img
archives=$images/root/packages  # *.deb, and `closure`, which names them, for the list of this checksum
size=2G
uuid=c1057a3e-0b6d-4a53-9c63-0d1b00d15c00
suite=bookworm

# What needs file owners other than our own.
if [ "$(id -u)" != 0 ] && [ -z "${FAKEROOTKEY:-}" ]; then exec fakeroot -- "$0" "$@"; fi

# releases: "KERNEL RELEASE" of each kernel that is there.
releases() {
  local kernel
  for kernel in $kernels_known; do
    [ ! -e "$images/$kernel/release" ] || echo "$kernel $(cat "$images/$kernel/release")"
  done
}

packages() { sed -nE 's/^([a-z0-9][^ ]*).*/\1/p' "$guest/disk_packages.list"; }
left_out() { sed -nE 's/^-([^ ]*).*/\1/p' "$guest/disk_packages.list"; }

# stamp: one line that is another when anything the disk is made of is.
stamp() {
  { releases
    cat "$0" "$guest/disk_packages.list" "$guest/disk_modules.list"
    (cd "$guest/rootfs" && find . -type f | LC_ALL=C sort | while read -r file; do
      [ -x "$file" ] && echo "x $file" || echo "- $file"
      cat "$file"
    done)
  } | sha256sum
}

# install_in ARGS...: APT on the suite, where only what is left out counts as installed.
install_in() {
  apt_in "$suite" apt-get -y --no-install-recommends -o Dir::State::status="$archives/status" \
    -o Dir::Cache::Archives="$archives/" "$@"
}

# Downloads the packages, unless they are those of last time.
fetch() {
  local list log=$fetch_dir/rootdisk.log name
  list=$(packages; left_out)
  [ "$(cat "$archives/list" 2>/dev/null)" != "$list" ] || return 0
  say "fetching the packages of the root disk (some 65 MB)"
  update_suite "$suite"
  mkdir -p "$archives/partial"
  rm -f "$archives/list"
  for name in $(left_out); do
    printf 'Package: %s\nStatus: install ok installed\nVersion: 999\nArchitecture: all\nMulti-Arch: foreign\n' "$name"
    printf 'Maintainer: nobody <nobody@localhost>\nDescription: left out\n\n'
  done > "$archives/status"
  # The names first, as if nothing were downloaded yet.
  install_in -o Dir::Cache::Archives=/nonexistent/ --print-uris install $(packages) 2>"$log" |
    awk '{print $2}' | LC_ALL=C sort > "$archives/closure" || true
  [ -s "$archives/closure" ] ||
    die "the packages of $guest/disk_packages.list do not fit together: $(tail -n 1 "$log")" "correct the list"
  install_in --download-only install $(packages) >"$log" 2>&1 ||
    die "cannot download the packages of the root disk: $(tail -n 1 "$log")" "check the network, then try again"
  find "$archives" -maxdepth 1 -name '*.deb' -printf '%f\n' | grep -vxFf "$archives/closure" |
    while read -r name; do rm "$archives/$name"; done || true
  echo "$list" > "$archives/list"
}

# unpack TREE: the packages, without what only people with time to read need. Links in the place of /bin and the like
# stand first: some packages still have their files there.
unpack() {
  local tree=$1 name
  mkdir -p "$tree"/usr/{bin,sbin,lib,lib32,lib64,libx32}
  for name in bin sbin lib lib32 lib64 libx32; do ln -s "usr/$name" "$tree/$name"; done
  while read -r name; do
    dpkg-deb --fsys-tarfile "$archives/$name" |
      tar -x -f - -C "$tree" --keep-directory-symlink --exclude='./usr/share/doc/*/[!c]*' \
        --exclude='./usr/share/doc/*/ch*' --exclude='./usr/share/man/*' \
        --exclude='./usr/share/info/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/lintian/*' \
        --exclude='./usr/share/bash-completion/*' --exclude='./lib/systemd/*' --exclude='./usr/lib/systemd/*' ||
      die "cannot unpack $name" "remove $archives and try again: the file may be damaged"
  done < "$archives/closure"
}

# add_modules TREE: those of each kernel, and modprobe's tables.
add_modules() {
  local tree=$1 kernel release name file from to
  while read -r kernel release; do
    from=$images/$kernel/root
    to=$tree/usr/lib/modules/$release
    mkdir -p "$to"
    cp "$from/lib/modules/$release"/modules.{builtin,builtin.modinfo,order} "$to/"
    sed -nE 's/^([a-zA-Z0-9][^ ]*).*/\1/p' "$guest/disk_modules.list" | while read -r name; do
      { modprobe -d "$from" -S "$release" --show-depends "$name" 2>/dev/null || true; } | sed -n 's/^insmod \([^ ]*\).*/\1/p'
    done | sort -u | while read -r file; do
      install -D -m 644 "$file" "$to/${file#*/"$release"/}"
    done
    depmod -b "$tree" "$release"
  done < <(releases)
}

# configure TREE: what maintainer scripts would have done, as far as a guest needs it.
configure() {
  local tree=$1 share=$1/usr/share name
  cp "$share/base-passwd/passwd.master" "$tree/etc/passwd"
  cp "$share/base-passwd/group.master" "$tree/etc/group"
  sed -i 's|^root:[^:]*:\(.*\):[^:]*$|root:x:\1:/bin/bash|; s|^\([^:]*\):\*:|\1:x:|' "$tree/etc/passwd"
  # root needs no password, nobody else gets in.
  awk -F: '{ printf "%s:%s:19000:0:99999:7:::\n", $1, $1 == "root" ? "" : "*" }' "$tree/etc/passwd" > "$tree/etc/shadow"
  awk -F: '{ printf "%s:*::\n", $1 }' "$tree/etc/group" > "$tree/etc/gshadow"
  printf '/bin/sh\n/bin/bash\n' > "$tree/etc/shells"
  cp "$share/base-files/profile" "$tree/etc/profile"
  cp "$share/base-files/motd" "$tree/etc/motd"
  cp "$tree/etc/skel/.bashrc" "$share/base-files/dot.profile" "$tree/root/"
  mv "$tree/root/dot.profile" "$tree/root/.profile"
  printf 'passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n' > "$tree/etc/nsswitch.conf"
  ln -sfn /proc/self/mounts "$tree/etc/mtab"
  ln -sfn /run/network/resolv.conf "$tree/etc/resolv.conf"  # where DHCP writes, also on a read-only disk
  for name in run lock; do rm -rf "$tree/var/$name"; done
  ln -s /run "$tree/var/run"
  ln -s /run/lock "$tree/var/lock"
  for name in awk:mawk nawk:mawk pager:less; do
    ln -sf "/usr/bin/${name#*:}" "$tree/etc/alternatives/${name%:*}"
    ln -sf "/etc/alternatives/${name%:*}" "$tree/usr/bin/${name%:*}"
  done
  ln -sf which.debianutils "$tree/usr/bin/which"
  mkdir -p "$tree"/{boot,dev,home,media,mnt,opt,proc,root,run,srv,sys,tmp} "$tree"/{etc/inittab.d,var/log,var/tmp}
  chmod 1777 "$tree/tmp" "$tree/var/tmp"
  chmod 700 "$tree/root"

  # Ours last. A clone's files have the modes that its owner's umask gave them.
  (cd "$guest/rootfs" && find . -type f) | while read -r name; do
    install -D -m "$([ -x "$guest/rootfs/$name" ] && echo 755 || echo 644)" "$guest/rootfs/$name" "$tree/$name"
  done
  chown -h -R 0:0 "$tree/etc/inittab" "$tree/usr/lib/crosvm"
  chgrp 42 "$tree"/etc/{shadow,gshadow}  # group shadow of base-passwd
  chmod 640 "$tree"/etc/{shadow,gshadow}
}

# Sorted and dated by the packages, so that the same input gives the same disk.
make_disk() {
  local tree=$1 to=$2 date
  date=$(stat -c %Y "$tree/etc/debian_version")
  find "$tree" -newermt "@$started" -exec touch -h -d "@$date" {} +
  truncate -s "$size" "$to"
  # A small journal, no reserve, tables made now: a guest's first mount has nothing left to do.
  E2FSPROGS_FAKE_TIME=$date mke2fs -q -F -t ext4 -d "$tree" -L debian12 -U "$uuid" -N 65536 -m 0 -J size=4 \
    -E "lazy_itable_init=0,lazy_journal_init=1,hash_seed=$uuid,root_owner=0:0" "$to" ||
    die "mke2fs cannot make the root disk" "see the message above; is there room in $images?"
  # No file system lets us choose these, so mke2fs copied the present.
  dumpe2fs "$to" 2>/dev/null | awk -v date="@$date" '
    /^Inode count:/ { count = $3 }
    /^  Free inodes:/ {
      for (i = 3; i <= NF; i++) {
        ends = split($i, range, /[-,]/)
        last = ends > 1 && range[2] != "" ? range[2] : range[1]
        for (inode = range[1]; inode <= last; inode++) free[inode] = 1
      }
    }
    END {
      for (inode = 2; inode <= count; inode++) {
        if (inode in free || (inode > 2 && inode < 11)) continue
        print "set_inode_field <" inode "> ctime " date
        print "set_inode_field <" inode "> atime " date
      }
    }' | E2FSPROGS_FAKE_TIME=$date debugfs -w -f - "$to" >/dev/null 2>&1
}

command -v mke2fs >/dev/null || die "mke2fs is not installed" "run ./dev install boot"
only_one
new_stamp=$(stamp)
if [ -e "$disk" ] && [ "$(cat "$images/root/stamp" 2>/dev/null)" = "$new_stamp" ]; then exit 0; fi
mkdir -p "$archives"
fetch
say "making the root disk"
staging=$(mktemp -d "$images/.root.XXXXXX")
trap 'rm -rf "$staging"' EXIT
started=$(($(date +%s) - 1))
mkdir "$staging/tree"
unpack "$staging/tree"
add_modules "$staging/tree"
configure "$staging/tree"
make_disk "$staging/tree" "$staging/disk"
rm -f "$images/root/stamp"
mv "$staging/disk" "$disk"
echo "$new_stamp" > "$images/root/stamp"
