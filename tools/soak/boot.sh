#!/bin/bash
# Boots every kernel, as bzImage and as vmlinux, N times in a row in one test host: boot.sh [N [KERNEL...]]
# (default: 20 times, cloud12 generic12 cloud13).
#
# A boot counts when the guest ran a command and crosvm ended by itself in time. Every console is kept in
# build/soak/boot; the last line counts.
source "$(dirname "$0")/../dev/common.sh"

count=${1:-20}
[[ $count =~ ^[1-9][0-9]*$ ]] || usage_error "soak boot: the number of boots is a number above 0, not '$count'"
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $kernels_known
"$root/tools/dev/build.sh" --release crosvm
"$root/tools/dev/images.sh" "$@"

logs=$build/soak/boot
rm -rf "$logs"
mkdir -p "$logs"
# shellcheck disable=SC2016  # expanded in the test host
"$root/tools/testhost/run.sh" --timeout $((count * $# * 2 * 90)) --out "$logs" -- bash -c '
  count=$1
  images=$2
  shift 2
  word=$(printf %s "uname -r; exit 42" | base64 -w0)
  passed=0 failed=0
  for kernel; do
    for file in vmlinuz vmlinux; do
      for i in $(seq "$count"); do
        console=/out/$kernel-$file-$i.log
        start=$(date +%s)
        status=0
        timeout -k 5 80 crosvm --extended-status run -m 512 -c 2 -i "$images/$kernel/initrd" \
          -p "quiet crosvm.run=$word" "$images/$kernel/$file" </dev/null >"$console" 2>&1 || status=$?
        took=$(($(date +%s) - start))
        if [ "$status" = 0 ] && grep -q "^@@crosvm-exit 42@@" "$console"; then
          passed=$((passed + 1))
          echo "ok     $kernel $file boot $i: $took s"
        else
          failed=$((failed + 1))
          echo "FAILED $kernel $file boot $i: status $status after $took s, $console"
        fi
      done
    done
  done
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ]
' boot "$count" "$images" "$@" | tee "$logs/summary.log"
