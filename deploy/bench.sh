#!/bin/sh
# Times `platen convert` over the plain fixtures, one at a time and then as many as there are processors:
#   deploy/bench.sh target/release/platen
# The numbers are of conversions by a warm engine (`totalMs` of --json), the first of each run included.
set -eu
cd "$(dirname "$0")/.."
platen=$1
rounds=${ROUNDS:-5}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

report() {
  # One line a file: median over the rounds; then median, 95th percentile and files per second over all.
  sed -n 's/.*"file":"\([^"]*\)".*"status":"\([a-z]*\)".*"totalMs":\([0-9]*\).*/\1 \2 \3/p' "$1" | sort -k1,1 -k3,3n | awk -v seconds="$2" '
    function median(list, count) { return list[int((count + 1) / 2)] }
    $2 != "succeeded" { bad++; next }
    $1 != file { if (count) printf "  %6d ms  %s\n", median(times, count), file; file = $1; count = 0 }
    { times[++count] = $3; all[++total] = $3 }
    END {
      if (count) printf "  %6d ms  %s\n", median(times, count), file
      for (i = 2; i <= total; i++) { value = all[i]; for (j = i - 1; j > 0 && all[j] > value; j--) all[j + 1] = all[j]; all[j + 1] = value }
      if (total) printf "  %d conversions in %.1f s: median %d ms, 95th percentile %d ms, %.1f a second, %d failed\n",
        total, seconds, all[int((total + 1) / 2)], all[int(total * 0.95 + 0.5)], total / seconds, bad
    }'
}

for jobs in 1 "$(nproc)"; do
  echo "== $jobs at a time, $rounds rounds"
  set --
  for _ in $(seq "$rounds"); do set -- "$@" fixtures/documents/plain/*; done
  started=$(date +%s.%N)
  "$platen" convert "$@" --out "$work/out" --jobs "$jobs" --json >"$work/lines" || true
  report "$work/lines" "$(echo "$(date +%s.%N) $started" | awk '{ print $1 - $2 }')"
  [ "$jobs" != "$(nproc)" ] || break
done
