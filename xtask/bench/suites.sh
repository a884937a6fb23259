#!/usr/bin/env bash
# Suites: attempts a minute, what an attempt costs beyond its commands, durable enqueueing beside bare SQLite, restart with a long queue, the
# runner's memory. Called by `cargo xtask bench` with the binary and an empty directory; prints rows of a Markdown document.
set -euo pipefail
program=$1 work=$2
export COFFERDAM_DATA_DIR=$work/data
now() { date +%s%N; }
task() { # NAME AGENT LIMITS
    mkdir -p "$work/$1"
    printf 'version: 1\nid: %s\ninstruction: x\nagent: {command: [sh, -c, "%s"]}\nverify: {command: [sh, -c, "grep -q right output/answer"]}\nlimits: %s\ncleanup: {delay: 1ms}\n' \
        "$1" "$2" "$3" > "$work/$1/task.yaml"
}
count() { sqlite3 "$work/data/cofferdam.db" "$1" 2>/dev/null || echo 0; }
small='{memory: 128MiB, cpus: 0.25, disk: 16MiB}'
task trivial "echo right > output/answer" "$small"
"$program" suite run -q "$work/trivial" --attempts 20 > /dev/null

begin=$(now); "$program" suite run -q "$work/trivial" --attempts 2000 --parallel 6 > /dev/null; end=$(now)
awk -v t=$((end - begin)) 'BEGIN { printf "| attempts a minute, trivial task, verification included | 600, 2,000 | %d |\n", 2000 * 60e9 / t }'

begin=$(now); "$program" suite run -q "$work/trivial" --attempts 200 --parallel 1 > /dev/null; end=$(now)
# The commands themselves: two shells, one of which executes grep.
own=$(now); for _ in $(seq 50); do (cd "$work" && mkdir -p output && sh -c "echo right > output/answer" && sh -c "grep -q right output/answer"); done; own=$((($(now) - own) / 50))
awk -v t=$((end - begin)) -v o="$own" 'BEGIN { printf "| an attempt beyond its commands, one after the other | 40 ms, 15 ms | %.1f ms (the commands: %.1f ms) |\n", t / 200e6 - o / 1e6, o / 1e6 }'

# One commit for each row, as a queue without groups would do it; then a suite of as many attempts as are asked for.
bare() {
    python3 - "$work/bare.db" <<'PYTHON'
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA journal_mode=WAL"); database.execute("PRAGMA synchronous=FULL")
database.execute("CREATE TABLE IF NOT EXISTS item (number INTEGER PRIMARY KEY, record TEXT)")
begin = time.perf_counter()
for _ in range(500):
    database.execute("INSERT INTO item (record) VALUES (?)", ("x" * 200,))
print(500 / (time.perf_counter() - begin))
PYTHON
}
task waits "echo right > output/answer; sleep 600" '{memory: 128MiB, cpus: 0.01, disk: 8MiB}'
rate=$(bare)
begin=$(now)
"$program" suite run -q "$work/waits" --attempts 10000 --parallel 100 > /dev/null 2>&1 &
runner=$!
until [ "$(count "SELECT count(*) FROM suite_item WHERE suite = (SELECT id FROM suite ORDER BY created_at DESC LIMIT 1)")" = 10000 ]; do sleep 0.01; done
end=$(now)
awk -v t=$((end - begin)) -v r="$rate" 'BEGIN { n = 10000e9 / t; printf "| durable enqueueing (FULL) beside bare SQLite commits | 0.7x, 3x | %.0fx: %d a second instead of %d |\n", n / r, n, r }'

for _ in $(seq 600); do [ "$(count "SELECT count(*) FROM attempt WHERE phase = 'running'")" -ge 100 ] && break; sleep 0.1; done
running=$(count "SELECT count(*) FROM attempt WHERE phase = 'running'")
memory=$(awk '/VmHWM/ { printf "%d", $2 / 1024 }' "/proc/$runner/status")
echo "| memory of the runner with 10,000 queued and $running running | 150 MiB, 80 MiB | $memory MiB |"
kill -9 $runner; wait $runner 2>/dev/null || true
begin=$(now)
"$program" suite run -q --resume --parallel 100 > /dev/null 2>&1 &
runner=$!
until [ "$(count "SELECT count(*) FROM attempt WHERE phase = 'running' AND created_at > $((begin / 1000000))")" -ge 1 ]; do sleep 0.01; done
end=$(now)
awk -v t=$((end - begin)) -v n="$running" 'BEGIN { printf "| restart with 10,000 queued and %d running: dispatching again after | 10 s, 3 s | %.2f s |\n", n, t / 1e9 }'
kill -9 $runner; wait $runner 2>/dev/null || true
"$program" prune -q > /dev/null 2>&1 || true
