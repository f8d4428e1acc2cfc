#!/bin/bash
# Boots one kernel under each monitor in turn: boot_peers.sh ROUNDS KERNEL INITRD OUT.
#
# Runs where KVM runs stock guests, with crosvm and start_bench in PATH. Leaves OUT/MONITOR.json, a line
# of start_bench for each boot that reached the guest's init; messages go to standard error. The same
# kernel, initrd, words for the kernel, one vCPU and 512 MiB for all; the console is a 16550. QEMU's guest
# memory is anonymous and gets huge pages by itself; crosvm's is a memfd, so it is measured with both.
rounds=$1 kernel=$2 initrd=$3 out=$4
monitors=(crosvm crosvm-hugepages microvm q35)

# The guest's init says @@crosvm-begin@@ before it runs a command; it need not get further.
words="quiet crosvm.run=$(printf true | base64 -w0)"
qemu=(-accel kvm -cpu host -smp 1 -m 512 -nodefaults -no-user-config -display none -no-reboot -serial stdio
  -kernel "$kernel" -initrd "$initrd" -append "panic=-1 console=ttyS0 $words")

# boot MONITOR: prints what start_bench measured of one boot.
boot() {
  local command=(crosvm run -c 1 -m 512 --serial type=stdout,num=1,console -i "$initrd" -p "$words")
  case $1 in
    crosvm) command+=("$kernel") ;;
    crosvm-hugepages) command+=(--hugepages "$kernel") ;;
    *) command=(qemu-system-x86_64 -M "$1" "${qemu[@]}") ;;
  esac
  start_bench --until @@crosvm-begin@@ 1 "${command[@]}"
}

# Without this --hugepages has no effect. On somebody's own machine it is not ours to set.
[ -z "${CROSVM_TESTHOST:-}" ] || echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled

# Nobody pays for the first reading of the files.
for program in crosvm qemu-system-x86_64; do cat "$(command -v "$program")"; done >/dev/null
cat "$kernel" "$initrd" >/dev/null

mkdir -p "$out"
for ((round = 0; round < rounds; round++)); do
  for ((i = 0; i < ${#monitors[@]}; i++)); do
    # Each round begins with another one.
    monitor=${monitors[(round + i) % ${#monitors[@]}]}
    if result=$(boot "$monitor"); then
      echo "$result" >> "$out/$monitor.json"
      echo "round $((round + 1)) $monitor: $result" >&2
    else
      echo "round $((round + 1)) $monitor: did not reach init" >&2
      echo "$monitor" >> "$out/failed"
    fi
  done
done
