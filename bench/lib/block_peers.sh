# Sourced by benchmarks of disks: the back-ends that are compared. Needs $out, a folder for their sockets.
# Each started one is a target of block_bench: ${targets[@]}.
peers=() targets=()

stop_peers() {
  local each
  for each in "${peers[@]}"; do { kill "$each" && wait "$each"; } 2>/dev/null || true; done
  peers=() targets=()
}

# add_peer PID: waits for its socket.
add_peer() {
  local tries socket=$out/peer${#targets[@]}
  peers+=("$1")
  for ((tries = 0; tries < 100; ++tries)); do
    [ ! -S "$socket" ] || { targets+=("vhost=$socket,pid=$1"); return 0; }
    kill -0 "$1" 2>/dev/null || break
    sleep 0.1
  done
  return 1
}

# add_daemon IMAGE FORMAT CACHE_DIRECT: qemu-storage-daemon; CACHE_DIRECT is on or off.
add_daemon() {
  local socket=$out/peer${#targets[@]}
  rm -f "$socket"
  qemu-storage-daemon \
    --blockdev "driver=file,node-name=file,filename=$1,cache.direct=$3,aio=io_uring,locking=off,discard=unmap" \
    --blockdev "driver=$2,node-name=disk,file=file,discard=unmap" \
    --export "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=$socket,writable=on,num-queues=4" \
    >&2 &
  add_peer $!
}

# add_worker KEYS: our device in a jailed process of its own.
add_worker() {
  local socket=$out/peer${#targets[@]}
  rm -f "$socket"
  "$build/release/crosvm" --no-syslog devices --block "vhost=$socket,$1" >&2 &
  add_peer $! || die "crosvm devices did not start" "see the message above"
}

# run_loads NAME MEBIBYTES: what block_bench prints of the targets, in $out/result; they are stopped.
run_loads() {
  say "$1: 8 loads, 13 rounds each"
  "$build/release/block_bench" "$2" "${targets[@]}" > "$out/result" || die "the benchmark ended early" "see the message above"
  stop_peers
}
