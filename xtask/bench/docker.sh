#!/usr/bin/env bash
# The engine docker beside the daemon's own client: a start, twenty together, an exec. Called by `cargo xtask bench` with the binary, an empty
# directory and the daemon's address; prints rows of a Markdown document.
set -euo pipefail
program=$1 work=$2
export COFFERDAM_DATA_DIR=$work/data DOCKER_HOST=$3
mkdir -p "$work/root/bin" "$work/root/etc"
cp /bin/busybox "$work/root/bin/busybox"
for name in sh true sleep; do ln -s busybox "$work/root/bin/$name"; done
printf 'root:x:0:0::/root:/bin/sh\n' > "$work/root/etc/passwd"
"$program" -q image import "$work/root" bench:1 > /dev/null
# What it says ends with the image's id, which the daemon knows it by.
image=$("$program" image load --engine docker bench:1 | grep -o 'sha256:[0-9a-f]*')
ours=("$program" run --engine docker --image bench:1 -m 512m --cpus 1 --pids 100 --)
raw=(docker run --rm --network none --read-only --cap-drop ALL --security-opt no-new-privileges
    -m 512m --memory-swap 512m --cpus 1 --pids-limit 100 -u 10001:10001 --log-driver json-file "$image")
now() { date +%s%N; }
once() { local begin; begin=$(now); "$@" > /dev/null; echo $((($(now) - begin) / 1000)); }
: > "$work/ours"; : > "$work/raw"
for _ in $(seq 40); do
    once "${ours[@]}" /bin/true >> "$work/ours"
    once "${raw[@]}" /bin/true >> "$work/raw"
done
at() { sort -n "$1" | awk -v p="$2" '{ v[NR] = $1 } END { i = int(NR * p + 0.999); print v[i < 1 ? 1 : i] }'; }
row() { awk -v a="$2" -v b="$3" -v w="$1" -v m="$4" 'BEGIN { printf "| %s | %s | %.0f | %.0f | %+.0f %% |\n", w, m, a / 1000, b / 1000, 100 * (a / b - 1) }'; }
row "a start, 50th of 100, ms" "$(at "$work/ours" 0.5)" "$(at "$work/raw" 0.5)" "+10 %, +3 %"
row "a start, 95th of 100, ms" "$(at "$work/ours" 0.95)" "$(at "$work/raw" 0.95)" "+10 %, +3 %"
together() { local begin; begin=$(now); for _ in $(seq 20); do "$@" > /dev/null & done; wait; echo $((($(now) - begin) / 1000)); }
: > "$work/ours20"; : > "$work/raw20"
for _ in 1 2 3 4 5; do
    together "${ours[@]}" /bin/true >> "$work/ours20"
    together "${raw[@]}" /bin/true >> "$work/raw20"
done
row "twenty together, ms" "$(at "$work/ours20" 0.5)" "$(at "$work/raw20" 0.5)" "+10 %, equal"
"$program" run -d --name bench --engine docker --image bench:1 -- sleep 600 > /dev/null
id=$(docker run -d --network none "$image" /bin/sleep 600)
: > "$work/ourexec"; : > "$work/rawexec"
for _ in $(seq 30); do
    once "$program" exec bench /bin/true >> "$work/ourexec"
    once docker exec "$id" /bin/true >> "$work/rawexec"
done
row "an exec, ms" "$(at "$work/ourexec" 0.5)" "$(at "$work/rawexec" 0.5)" ""
"$program" rm -f bench > /dev/null
docker rm -f "$id" > /dev/null
