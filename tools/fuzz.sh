#!/usr/bin/env bash
# ./dev fuzz [SECONDS] [TARGET]: each fuzz target for so long, from its committed corpus; finds stay in build/fuzz-work.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1 only=$2
for binary in build/fuzz/fuzz/fuzz_*; do
    name=$(basename "$binary" | sed 's/^fuzz_//')
    [ -z "$only" ] || [ "$only" = "$name" ] || continue
    work=build/fuzz-work/$name
    mkdir -p "$work"
    printf '== fuzz %s for %s s\n' "$name" "$seconds"
    "$binary" -max_total_time="$seconds" -print_final_stats=1 -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="$work/find-" "$work" "tests/fuzz/$name/corpus" 2>&1 |
        grep -E 'ERROR|SUMMARY|stat::(number_of_executed|average_exec)|Test unit written|panic' || true
    if ls "$work"/find-* >/dev/null 2>&1; then
        echo "$name found something: $(ls "$work"/find-*)"
        exit 1
    fi
done
