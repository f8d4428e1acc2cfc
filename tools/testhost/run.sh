#!/bin/bash
# Runs a command in the test host: a Debian machine with a true KVM, inside QEMU's emulation of AMD-V.
# See ./dev testhost --help.
source "$(dirname "$0")/../dev/common.sh"

usage() {
  cat <<'END'
./dev testhost [OPTION...] [--] COMMAND [ARGUMENT...]

Runs COMMAND as root in the test host and returns its output and status. The machine's own files are
there, writable, but what is written is lost; except in /out. /scratch is an ext4 disk.

  --mem SIZE       memory of the test host (default 4G; a guest of 6 GiB needs 8G)
  --cpus N         its processors (default 2)
  --timeout S      give up after S seconds, with status 124 (default 1800; 0: never)
  --out DIR        the folder that COMMAND sees as /out (default: one that is thrown away)
  --bin DIR        the build to run: its programs are copied first, so a rebuild does not disturb them;
                   COMMAND finds the copies first in PATH, crosvm also as $CROSVM_BIN (default build/release)
  --program FILE   one more program to copy, likewise
  --disk FILE      one more disk of the test host, /dev/vdb and so on; what is written to it is lost
  --kernel NAME    kernel of the test host (default generic12)
  --arch x86_64    the only architecture so far
  --interactive    COMMAND has a terminal, which is our standard input and output
END
}

mem=4G cpus=2 timeout=1800 out='' bin=$build/release kernel=generic12 interactive='' programs=() disks=()
while [ $# -gt 0 ]; do
  case $1 in
    --mem | --cpus | --timeout | --out | --bin | --kernel | --arch | --program | --disk) needs_value "$1" $# ;;&
    --mem) mem=$2; shift 2 ;;
    --cpus) cpus=$2; shift 2 ;;
    --timeout) timeout=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --bin) bin=$2; shift 2 ;;
    --kernel) kernel=$2; shift 2 ;;
    --program) programs+=("$2"); shift 2 ;;
    --disk) disks+=("$(readlink -f "$2")"); shift 2 ;;
    --arch)
      [ "$2" = x86_64 ] || usage_error "no test host for architecture '$2': only x86_64"
      shift 2 ;;
    --interactive) interactive=yes; shift ;;
    -h | --help) usage; exit 0 ;;
    --) shift; break ;;
    -*) usage_error "testhost: unknown option '$1'" ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || usage_error "testhost needs a command"

"$root/tools/dev/install.sh" boot testhost
"$root/tools/dev/kernels.sh" "$kernel"
"$root/tools/testhost/qemu.sh" --fetch
mkdir -p "$build/l1"
initrd=$build/l1/initrd-$kernel
"$root/tools/dev/pack_initrd.sh" "$kernel" "$root/tools/testhost/init" "$root/tools/testhost/modules.list" "$initrd"

run=$(mktemp -d "$build/l1/run.XXXXXX")
[ -n "$out" ] || out=$run/out
mkdir -p "$out" "$run/session" "$run/bin"
out=$(cd "$out" && pwd)

# What runs is a copy: the build may go on beside us, and the test host would not see files change.
if [ -d "$bin" ]; then
  while read -r file; do programs+=("$file"); done < <(find "$bin" -maxdepth 1 -type f -perm -u+x)
fi
for file in "${programs[@]}"; do cp --reflink=auto -p "$file" "$run/bin/"; done

{
  printf 'export PATH=%q:$PATH CROSVM_BIN=%q CROSVM_IMAGES=%q CROSVM_TESTHOST=1 TERM=%q\n' \
    "$run/bin" "$run/bin/crosvm" "$images" "${TERM:-dumb}"
  if [ -n "$interactive" ] && [ -t 0 ]; then printf 'stty rows %s cols %s\n' $(stty size); fi
  printf 'cd %q\n' "$(case $PWD/ in /run/* | /dev/*) echo "$root" ;; *) echo "$PWD" ;; esac)"
  printf '%q ' "$@"
  echo
} > "$run/session/command"
[ -z "$interactive" ] || touch "$run/session/interactive"

helpers=()
terminal=''
cleanup() {
  trap '' INT TERM HUP
  [ -z "$terminal" ] || stty "$terminal" <&5
  local pid
  for pid in "${helpers[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$run"
}
exec 5<&0
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# qemu: the machine. Its console is a log for people.
#
# vmlinux, as unpacking a bzImage costs the emulated processor 5 s. An emulated processor that never comes back
# from a guest would hold up the command until its time is over: such a machine is dead, and says so.
qemu() {
  local each id drives=()
  for each in "${disks[@]}"; do
    id=disk${#drives[@]}
    drives+=(-drive "file=$each,format=raw,if=none,id=$id,snapshot=on,discard=unmap"
      -device "virtio-blk-pci,drive=$id")
  done
  # Where the snapshots' files go.
  export TMPDIR=$run
  exec timeout -k 5 "$timeout" "$root/tools/testhost/qemu.sh" -nodefaults -no-user-config -display none \
    -machine q35 -accel tcg,thread=multi,tb-size=512 -cpu qemu64,+svm,+npt,+x2apic -smp "$cpus" -m "$mem" \
    -no-reboot -kernel "$images/$kernel/vmlinux" -initrd "$initrd" \
    -append "console=ttyS0 panic=-1 quiet mitigations=off tsc=reliable cryptomgr.notests=1 rcupdate.rcu_cpu_stall_timeout=60 sysctl.kernel.panic_on_rcu_stall=1 testhost.session=$root/tools/testhost/session" \
    -serial "file:$run/console.log" \
    -virtfs local,path=/,mount_tag=host,security_model=none,multidevs=remap,readonly=on \
    -virtfs "local,path=$run/session,mount_tag=session,security_model=none" \
    -virtfs "local,path=$out,mount_tag=out,security_model=none" \
    -drive "file=$run/scratch.img,format=raw,if=none,id=scratch,cache=unsafe,discard=unmap" \
    -device virtio-blk-pci,drive=scratch "${drives[@]}" -device virtio-rng-pci \
    -device virtio-serial-pci \
    -chardev "pipe,id=io,path=$run/io" -device virtserialport,chardev=io,name=io \
    -chardev "pipe,id=err,path=$run/err" -device virtserialport,chardev=err,name=err
}

# One life of the test host. Returns QEMU's status.
boot() {
  rm -f "$run/session/status" "$run"/{io,err}.{in,out} "$run/scratch.img"
  truncate -s 16G "$run/scratch.img"
  mke2fs -q -F -t ext4 -E lazy_itable_init=1,lazy_journal_init=1 "$run/scratch.img"
  mkfifo "$run"/{io,err}.{in,out}
  helpers=()
  cat "$run/io.out" & local output=$!
  cat "$run/err.out" >&2 & local errors=$!
  helpers+=("$output" "$errors")
  qemu </dev/null >"$run/qemu.log" 2>&1 & local machine=$!
  helpers+=("$machine")
  if [ -n "$interactive" ]; then
    # The end of our input is Ctrl-D to whoever reads there, as a port has no end of file: again and again,
    # for the first may meet a terminal that is not listening yet.
    (
      trap 'kill "$reader" 2>/dev/null; exit 0' TERM
      cat <&5 & reader=$!
      wait "$reader"
      while sleep 2; do printf '\004'; done
    ) 1<>"$run/io.in" & helpers+=($!)
  fi
  local status=0
  wait "$machine" || status=$?
  # Lets go of a reader whose pipe QEMU never opened.
  : <>"$run/io.out" <>"$run/err.out"
  wait "$output" "$errors"
  return $status
}

if [ -n "$interactive" ] && [ -t 0 ]; then
  terminal=$(stty -g)
  stty raw -echo
fi

for attempt in 1 2; do
  status=0
  boot || status=$?
  if [ -s "$run/session/status" ]; then
    exit "$(cat "$run/session/status")"
  fi
  cp "$run/console.log" "$build/l1/last-console.log" 2>/dev/null || true
  if [ "$status" = 124 ] || [ "$status" = 137 ]; then
    say "the command had not ended after $timeout seconds; the test host was stopped (its console: build/l1/last-console.log)"
    exit 124
  fi
  say "the test host itself died (QEMU's status $status); the end of its console, build/l1/last-console.log:"
  tail -n 15 "$run/console.log" "$run/qemu.log" >&2 2>/dev/null || true
  [ -z "$interactive" ] && [ "$attempt" = 1 ] || break
  say "trying once more"
done
die "the test host died" "run the command again; if it dies each time, see build/l1/last-console.log"
