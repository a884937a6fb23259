#!/usr/bin/env bash
# The same Harbor directories through Cofferdam and through Harbor on Docker: rewards must be the same, times are compared. Called by
# `cargo xtask bench` with the binary, an empty directory, a Docker daemon's socket and a harbor program; prints rows of a Markdown
# document. Images are there before anything is timed: built once by each.
set -euo pipefail
program=$1 work=$2
export DOCKER_HOST=$3
harbor=$4
export COFFERDAM_DATA_DIR=$work/data HARBOR_TELEMETRY=0 PATH=/usr/sbin:/usr/bin:/sbin:/bin
rounds=${ROUNDS:-3}
# Compose 2 is a plugin of the client; it is put where this run alone looks for it.
sh xtask/parts.sh docker-compose
export DOCKER_CONFIG=$work/docker-config
mkdir -p "$DOCKER_CONFIG/cli-plugins"
cp target/parts/usr/libexec/docker/cli-plugins/docker-compose "$DOCKER_CONFIG/cli-plugins/"
mkdir -p "$work/root/bin" "$work/root/etc" "$work/root/tmp"
cp /bin/busybox "$work/root/bin/busybox"
for applet in $(/bin/busybox --list); do [ "$applet" = busybox ] || ln -sf busybox "$work/root/bin/$applet"; done
for file in /bin/bash $(ldd /bin/bash | grep -o '/[^ ]*'); do mkdir -p "$work/root${file%/*}"; cp "$file" "$work/root$file"; done
echo 'root:x:0:0:root:/:/bin/sh' > "$work/root/etc/passwd"; echo 'root:x:0:' > "$work/root/etc/group"
"$program" image import "$work/root" debian:bookworm-slim > /dev/null
tar -C "$work/root" -c . | docker import - debian:bookworm-slim > /dev/null
cp -r examples/harbor "$work/tasks"
# Harbor's Docker environment enforces a network policy with a sidecar that is built from the internet only: both run without one here.
sed -i '/^network_mode/d' "$work"/tasks/*/task.toml
now() { date +%s%N; }
engine=native
ours() { "$program" suite run -q --engine "$engine" --agent oracle -o json "$work/tasks" > "$work/ours.json"; }
theirs() {
    rm -rf "$work/jobs"
    (cd "$work" && "$harbor" run -p "$work/tasks" -a oracle -n 4 -y --jobs-dir "$work/jobs" > "$work/harbor.log" 2>&1)
}
ours; theirs
rewards() {
    python3 - "$work" <<'PYTHON'
import glob, json, sys
work = sys.argv[1]
ours = {a["task"]: a["reward"] for a in json.load(open(f"{work}/ours.json"))["attempts"]}
theirs = {}
for path in glob.glob(f"{work}/jobs/*/*/result.json"):
    result = json.load(open(path))
    rewards = (result.get("verifier_result") or {}).get("rewards") or {}
    theirs[result["task_name"].split("/")[-1]] = rewards.get("reward")
same = ours == theirs
print("| the same rewards from both | yes | " + ("yes" if same else f"NO: {ours} {theirs}") + f", {len(ours)} directories |")
sys.exit(0 if same else 1)
PYTHON
}
compare() { # what, must and aim
    local begin a=0 b=0
    rewards
    for _ in $(seq "$rounds"); do
        begin=$(now); ours; a=$((a + $(now) - begin))
        begin=$(now); theirs; b=$((b + $(now) - begin))
    done
    rewards > /dev/null
    awk -v a="$a" -v b="$b" -v n="$rounds" -v w="$1" -v m="$2" 'BEGIN { printf "| %s | %s | %.1fx: %.2f s instead of %.1f s |\n", w, m, b / a, a / n / 1e9, b / n / 1e9 }'
}
compare "the same directories through Harbor on Docker (oracle)" "5x, 10x"
# Both on the daemon: five directories whose verifier is a container of its own, since the engine docker has no other.
mkdir "$work/separate"
for number in 1 2 3 4 5; do
    cp -r "$work/tasks/sealed-answer" "$work/separate/sealed-$number"
    sed -i "s/sealed-answer/sealed-$number/" "$work/separate/sealed-$number/task.toml"
done
rm -r "$work/tasks"; mv "$work/separate" "$work/tasks"
engine=docker
ours; theirs
compare "five directories with a verifier of its own, both on Docker" "2x, 4x"
