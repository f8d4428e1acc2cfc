#!/bin/bash
# Frames through taps: net_taps.sh BUILD OUT, in a network namespace of its own. Prints what net_bench prints of a card in
# a jailed process, one on a thread, and a tap alone. OUT is a folder for a socket.
set -euo pipefail
build=$1 out=$2

sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 2>/dev/null ||
  echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 2>/dev/null || true
for tap in worker thread bare; do
  ip tuntap add mode tap name $tap multi_queue vnet_hdr
  ip link set $tap mtu 65521 up
done
socket=$out/card
"$build/crosvm" --no-syslog devices --net "vhost=$socket,tap-name=worker,vq-pairs=4,mac=02:00:00:00:00:ee" >&2 &
card=$!
trap 'kill $card 2>/dev/null || true; wait' EXIT
for ((tries = 0; tries < 100; ++tries)); do
  [ ! -S "$socket" ] || break
  kill -0 "$card"
  sleep 0.1
done
"$build/net_bench" ${BENCH_NET_LOAD:+--load "$BENCH_NET_LOAD"} "vhost=$socket,pid=$card,tap=worker" tap=thread bare=bare
