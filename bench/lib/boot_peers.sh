#!/bin/bash
# Boots one kernel under each monitor in turn: boot_peers.sh ROUNDS KERNEL INITRD DISK OUT.
#
# Runs where KVM runs stock guests, with crosvm and start_bench in PATH. Leaves OUT/MONITOR.json, a line
# of start_bench for each boot that reached the guest's init; messages go to standard error. The same
# kernel, initrd, words for the kernel, one vCPU and 512 MiB for all; the console is a 16550. QEMU's guest
# memory is anonymous and gets huge pages by itself; crosvm's is a memfd, so it is measured with both. Those
# called -disk boot the root disk DISK to its login, with an entropy device beside it.
rounds=$1 kernel=$2 initrd=$3 disk=$4 out=$5
monitors=(crosvm crosvm-hugepages microvm q35 crosvm-disk q35-disk)

# The guest's init says @@crosvm-begin@@ before it runs a command; it need not get further.
words="quiet crosvm.run=$(printf true | base64 -w0)"
qemu=(-accel kvm -cpu host -smp 1 -m 512 -nodefaults -no-user-config -display none -no-reboot -serial stdio
  -kernel "$kernel" -initrd "$initrd")
qemu_disk=(-drive "file=$disk,format=raw,if=none,id=disk,readonly=on,aio=io_uring" -device virtio-blk-pci,drive=disk
  -device virtio-rng-pci)

# boot MONITOR: prints what start_bench measured of one boot.
boot() {
  local until=@@crosvm-begin@@
  local command=(crosvm run -c 1 -m 512 --serial type=stdout,num=1,console -i "$initrd")
  case $1 in
    crosvm) command+=(--no-rng -p "$words" "$kernel") ;;
    crosvm-hugepages) command+=(--no-rng --hugepages -p "$words" "$kernel") ;;
    crosvm-disk) command+=(--block "$disk,ro,root" -p quiet "$kernel") ;;
    q35-disk)
      command=(qemu-system-x86_64 -M q35 "${qemu[@]}" "${qemu_disk[@]}"
        -append "panic=-1 console=ttyS0 quiet root=/dev/vda ro") ;;
    *) command=(qemu-system-x86_64 -M "$1" "${qemu[@]}" -append "panic=-1 console=ttyS0 $words") ;;
  esac
  case $1 in *-disk) until="Log in as root" ;; esac
  start_bench --until "$until" 1 "${command[@]}"
}

# Without this --hugepages has no effect. On somebody's own machine it is not ours to set.
[ -z "${CROSVM_TESTHOST:-}" ] || echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled

# Nobody pays for the first reading of the files.
for program in crosvm qemu-system-x86_64; do cat "$(command -v "$program")"; done >/dev/null
cat "$kernel" "$initrd" "$disk" >/dev/null

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
