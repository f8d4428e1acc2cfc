#!/bin/bash
# What iperf3 says of guests of crosvm and of QEMU, side by side: net_peers.sh IMAGES DISK SECONDS ROUNDS OUT.
#
# Runs where KVM runs stock guests, with crosvm and agent_run in PATH, in a network namespace that it may change. On each
# path (a tap, the same by vhost-net, a network without privilege) both guests stand at the same time and are measured in
# turns; the same kernel, initrd, root disk, one vCPU and 512 MiB. The servers are in the guests, the clients here. Leaves
# OUT/PATH.result, lines of tab-separated fields (what, crosvm's median, QEMU's, how many times as good crosvm is: the
# median of the rounds, their quartiles; the unit), or OUT/PATH.skipped, why there are none.
set -euo pipefail
images=$1 disk=$2 seconds=$3 rounds=$4 out=$5
monitors=(crosvm qemu)
scratch=$(mktemp -d)
declare -A jobs=()

say() { printf 'bench net: %s\n' "$*" >&2; }

stop_guests() {
  local each
  for each in "${jobs[@]}"; do kill "$each" 2>/dev/null || true; done
  for each in "${jobs[@]}"; do wait "$each" 2>/dev/null || true; done
  jobs=()
  for each in "${monitors[@]}"; do ip link del "to-$each" 2>/dev/null || true; done
}
trap 'stop_guests; rm -rf "$scratch"' EXIT

number_of() { [ "$1" = crosvm ] && echo 1 || echo 2; }

# network PATH MONITOR: what of the command line connects the guest.
network() {
  local number mac vhost=''
  number=$(number_of "$2")
  mac=02:00:00:00:81:0$number
  case $1-$2 in
    user-crosvm)
      echo "--net user,mac=$mac,forward=[tcp:$((5300 + number))-:5201,udp:$((5300 + number))-:5201]" ;;
    user-qemu)
      echo "-netdev user,id=net,hostfwd=tcp:127.0.0.1:$((5300 + number))-:5201,hostfwd=udp:127.0.0.1:$((5300 + number))-:5201" \
        "-device virtio-net-pci,netdev=net,mac=$mac" ;;
    *-crosvm)
      [ "$1" != vhost-net ] || vhost=,vhost-net
      echo "--net tap-name=to-crosvm,mac=$mac$vhost" ;;
    *-qemu)
      [ "$1" != vhost-net ] || vhost=,vhost=on
      echo "-netdev tap,id=net,ifname=to-qemu,script=no,downscript=no$vhost -device virtio-net-pci,netdev=net,mac=$mac" ;;
  esac
}

# start PATH MONITOR: boots a guest that serves iperf3 until it is stopped.
start() {
  local number address gateway='' socket=$scratch/$1-$2 log=$out/$1-$2.log options
  number=$(number_of "$2")
  address=10.81.$number.2/24
  if [ "$1" = user ]; then
    address=10.0.2.15/24 gateway='ip route add default via 10.0.2.2;'
  else
    ip tuntap add mode tap name "to-$2" vnet_hdr
    ip addr add "10.81.$number.1/24" dev "to-$2"
    ip link set "to-$2" up
  fi
  agent_run --wait 400 "$socket" -- sh -c "modprobe virtio_net; cd /sys/class/net
    until card=\$(ls | grep -v -x lo); do sleep 0.2; done
    ip link set \$card up; ip addr add $address dev \$card; $gateway iperf3 -s" >"$log.agent" 2>&1 &
  jobs[agent-$2]=$!
  until [ -S "$socket" ]; do sleep 0.05; done
  read -ra options <<<"$(network "$1" "$2")"
  if [ "$2" = crosvm ]; then
    crosvm run --hugepages -m 512 -c 1 -i "$images/initrd" -p quiet --block "$disk,ro,root" "${options[@]}" \
      --serial "type=file,path=$log,console" \
      --serial "type=unix-stream,path=$socket,input-unix-stream,hardware=virtio-console,name=agent,num=2" \
      "$images/vmlinuz" </dev/null >>"$log" 2>&1 &
  else
    qemu-system-x86_64 -M q35 -accel kvm -cpu host -smp 1 -m 512 -nodefaults -no-user-config -display none -no-reboot \
      -kernel "$images/vmlinuz" -initrd "$images/initrd" -append "panic=-1 console=ttyS0 quiet root=/dev/vda ro" \
      -drive "file=$disk,format=raw,if=none,id=disk,readonly=on,aio=io_uring" -device virtio-blk-pci,drive=disk \
      -device virtio-rng-pci -device virtio-serial-pci -chardev "socket,id=agent,path=$socket" \
      -device virtserialport,chardev=agent,name=agent -serial "file:$log" "${options[@]}" </dev/null >>"$log" 2>&1 &
  fi
  jobs[vm-$2]=$!
}

# client PATH MONITOR ARGUMENT...: an iperf3 client of that guest; prints the megabits a second that arrived.
client() {
  local to=(-c "10.81.$(number_of "$2").2")
  [ "$1" != user ] || to=(-c 127.0.0.1 -p $((5300 + $(number_of "$2"))))
  timeout $((seconds + 20)) iperf3 "${to[@]}" -f m -t "$seconds" "${@:3}" 2>&1 |
    awk '/receiver/ { for (i = 2; i <= NF; ++i) if ($i == "Mbits/sec") print $(i - 1) }' | tail -n 1
}

# echo_time MONITOR: the mean time of an echo, in milliseconds.
echo_time() {
  ping -q -c 200 -i 0.005 -W 2 "10.81.$(number_of "$1").2" 2>/dev/null |
    sed -nE 's|^(rtt\|round-trip)[^=]*= [0-9.]+/([0-9.]+)/.*|\2|p'
}

# measure PATH MONITOR WHAT
measure() {
  case $3 in
    "TCP to the guest") client "$1" "$2" ;;
    "TCP to the host") client "$1" "$2" -R ;;
    "UDP to the guest") client "$1" "$2" -u -b 0 -l 1448 ;;
    "UDP to the host") client "$1" "$2" -u -b 0 -l 1448 -R ;;
    ping) echo_time "$2" ;;
  esac
}

# reached PATH MONITOR: waits for the server in the guest.
reached() {
  local tries
  for ((tries = 0; tries < 300; ++tries)); do
    kill -0 "${jobs[vm-$2]}" 2>/dev/null || break
    [ -z "$(seconds=1 client "$1" "$2")" ] || return 0
    sleep 1
  done
  say "$1: the guest of $2 does not answer; see $2's log"
  return 1
}

# row WHAT UNIT: from the numbers of both, a round in each line.
row() {
  paste "$scratch/value-crosvm" "$scratch/value-qemu" | awk -v what="$1" -v unit="$2" '
    function sorted(list, n,  i, j, t) {
      for (i = 2; i <= n; ++i) for (j = i; j > 1 && list[j] < list[j - 1]; --j) { t = list[j]; list[j] = list[j - 1]; list[j - 1] = t }
    }
    $1 > 0 && $2 > 0 { a[++n] = $1; b[n] = $2; r[n] = unit == "ms" ? $2 / $1 : $1 / $2 }
    END {
      if (!n) exit 1
      sorted(a, n); sorted(b, n); sorted(r, n)
      m = int((n + 1) / 2)
      q = int((n + 3) / 4)
      printf "%s\t%s\t%s\t%.2f\t%.2f\t%.2f\t%s\n", what, a[m], b[m], r[m], r[q], r[n + 1 - q], unit
    }'
}

# compare PATH
compare() {
  local whats=("TCP to the guest" "TCP to the host" "UDP to the guest" "UDP to the host") what unit monitor round value
  [ "$1" = user ] || whats+=(ping)
  for monitor in "${monitors[@]}"; do start "$1" "$monitor"; done
  if ! { reached "$1" crosvm && reached "$1" qemu; }; then
    # Now and then a guest does not come up on an emulated processor, whoever runs it.
    say "$1: once more"
    stop_guests
    for monitor in "${monitors[@]}"; do start "$1" "$monitor"; done
    reached "$1" crosvm
    reached "$1" qemu
  fi
  for what in "${whats[@]}"; do
    unit=Mb/s
    [ "$what" != ping ] || unit=ms
    for monitor in "${monitors[@]}"; do : > "$scratch/value-$monitor"; done
    for ((round = 0; round < rounds; ++round)); do
      # Each round begins with the other one.
      for ((i = 0; i < 2; ++i)); do
        monitor=${monitors[(round + i) % 2]}
        value=$(measure "$1" "$monitor" "$what") || true
        echo "${value:-none}" >> "$scratch/value-$monitor"
        say "$1, $what, $monitor: ${value:-nothing} $unit"
      done
    done
    row "$what" "$unit" >> "$out/$1.result" || { say "$1, $what: no round gave two numbers"; exit 1; }
  done
  stop_guests
}

# QEMU's memory is anonymous and gets huge pages by itself; crosvm's is to have them too. On somebody's own machine it is
# not ours to set.
[ -z "${CROSVM_TESTHOST:-}" ] || echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled
# The programs' own network: the forwards of guests without privilege.
ip link set lo up
for path in ${BENCH_NET_PATHS:-tap vhost-net user}; do
  if [ "$path" = user ] && ! crosvm doctor --json | grep -q '"user-network"'; then
    echo "this crosvm has no --net user" > "$out/user.skipped"
    continue
  fi
  if [ "$path" = vhost-net ] && [ ! -w /dev/vhost-net ]; then
    echo "/dev/vhost-net is not there" > "$out/vhost-net.skipped"
    continue
  fi
  compare "$path"
done
