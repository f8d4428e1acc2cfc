#!/bin/bash
# Hostile vhost-user peers, both ways: peers.sh [MESSAGES [SEED]], 100,000 mutated messages to each of our two ends and
# to what decodes them, under ASan and UBSan. Log and seed stay in build/soak/peers.
source "$(dirname "$0")/../dev/common.sh"

messages=${1:-100000} seed=${2:-$((RANDOM * 32768 + RANDOM + 1))}
[[ $messages =~ ^[1-9][0-9]*$ ]] || usage_error "soak peers: '$messages' is no number of messages"
[[ $seed =~ ^[1-9][0-9]*$ ]] || usage_error "soak peers: '$seed' is no seed; give a number above 0"
targets=(vhost_user_server_fuzz vhost_user_backend_fuzz vhost_user_channel_fuzz)
"$root/tools/dev/build.sh" --fuzz "${targets[@]}"
logs=$build/soak/peers
rm -rf "$logs"
mkdir -p "$logs"
export ASAN_SYMBOLIZER_PATH=/usr/bin/llvm-symbolizer-19

# One round grows the corpus that the next one begins with, as messages that reach far are rare at first. Leaks are looked
# for at the end of each round: after each input, libFuzzer's own way, it takes most of the time, with as much memory as a
# guest has.
for target in "${targets[@]}"; do
  program=$(find "$build/fuzz" -type f -perm -u+x -name "$target" -print -quit)
  corpus=$logs/$target
  mkdir -p "$corpus"
  sent=0 round=0
  while [ "$sent" -lt "$messages" ]; do
    round=$((round + 1))
    log=$logs/$target-$round.log
    "$program" -seed=$((seed + round)) -max_total_time=60 -max_len=1024 -detect_leaks=0 -timeout=20 -rss_limit_mb=4096 \
      -artifact_prefix="$logs/crash-" "$corpus" >"$log" 2>&1 ||
      die "$target failed in round $round of seed $seed" "see $log; the input is $logs/crash-*"
    in_round=$(sed -n 's/^hostile messages: //p' "$log")
    [ "${in_round:-0}" -gt 0 ] || die "$target sent nothing in a round" "see $log"
    sent=$((sent + in_round))
  done
  say "$target: $sent hostile messages in $round rounds, seed $seed: no crash, no hang"
done 2>&1 | tee "$logs/summary.log" >&2
