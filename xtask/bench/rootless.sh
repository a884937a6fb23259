#!/usr/bin/env bash
# Without root, beside root and beside rootless podman; a large repository; a pause of a hundred processes. Called by `cargo xtask bench` as root with the
# binary; prints rows of a Markdown document. The ordinary user exists for as long as this runs.
set -euo pipefail
# podman waits for 20 s where the names of its sockets become too long.
work=/tmp/cfb$$ user=cofferdam-bench
mkdir "$work"
useradd --create-home --home-dir "$work/home" "$user"
# podman leaves a process of its own behind, which keeps the account in use.
trap 'pkill -9 -u "$user" || true; sleep 0.3; userdel --remove "$user" 2> /dev/null || true; rm -rf "$work"' EXIT
chmod 755 "$work"
install -m 755 "$1" "$work/cofferdam"
program=$work/cofferdam
as_user=(setpriv --reuid="$user" --regid="$user" --init-groups env "HOME=$work/home" "XDG_RUNTIME_DIR=$work/home/run")
"${as_user[@]}" mkdir -m 700 "$work/home/run"
ms() { hyperfine -N --warmup 3 --runs "$1" --export-json "$work/h.json" "${*:2}" > /dev/null 2>&1; python3 -c "import json; print(json.load(open('$work/h.json'))['results'][0]['median'] * 1000)"; }
row() { python3 -c "print('| %s | %s | %s |' % ('$1', '$2', '$3'))"; }
unset COFFERDAM_DATA_DIR
cost=$(ms 25 "${as_user[@]}" /bin/true)
theirs=$(ms 25 "${as_user[@]}" "$program" run -- /bin/true)
roots=$(ms 25 "$program" --data-dir "$work/root" run -- /bin/true)
row "without root against root" "1.5x, 1.1x" "$(python3 -c "print('%.2fx (%.1f ms against %.1f)' % (($theirs - $cost) / $roots, $theirs - $cost, $roots))")"
if command -v podman > /dev/null && command -v runc > /dev/null; then
    rootfs=$work/home/rootfs
    "${as_user[@]}" mkdir -p "$rootfs/bin" "$rootfs/proc" "$rootfs/dev" "$rootfs/sys" "$rootfs/tmp" "$rootfs/etc" "$rootfs/run"
    install -o "$user" /bin/busybox "$rootfs/bin/busybox"
    ln -s busybox "$rootfs/bin/true"
    podman=("${as_user[@]}" podman --runtime runc --log-level=error --cgroup-manager=cgroupfs run --rm --network none --read-only --cap-drop all
        --security-opt no-new-privileges --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 --rootfs "$rootfs" /bin/true)
    # It wants a shared root, and no second cgroup hierarchy beside version 1's.
    printf '%q ' "${podman[@]}" > "$work/podman"
    cat > "$work/podman.sh" << SCRIPT
mount --make-rshared / && { umount /sys/fs/cgroup/unified 2> /dev/null || true; }
cd $work/home
$(declare -f ms)
work=$work
ms 15 $(cat "$work/podman")
SCRIPT
    other=$(unshare --mount bash "$work/podman.sh")
    row "without root against rootless podman (runc, hardened)" "10x, 25x" "$(python3 -c "print('%.1fx (%.0f ms)' % (($other - $cost) / ($theirs - $cost), $other - $cost))")"
else
    row "without root against rootless podman" "10x, 25x" "not measured: no podman and runc on PATH"
fi
repo=$work/repo
mkdir "$repo"
python3 - "$repo" << 'PYTHON'
import os, sys
for directory in range(500):
    os.makedirs(f"{sys.argv[1]}/{directory}")
    for file in range(100):
        with open(f"{sys.argv[1]}/{directory}/{file}", "wb") as out: out.write(b"x" * 20_000)
PYTHON
git -C "$repo" init -q
with=$(ms 25 "$program" --data-dir "$work/root" -q run --name r --rm -v "$repo:/workspace/repo:rw" -- /bin/true)
view=$(ms 25 "$program" --data-dir "$work/root" -q run --repo "$repo" -- /bin/true)
kept=$(ms 25 "$program" --data-dir "$work/root" -q run --keep -- /bin/true)
row "run --repo, 1 GB in 50,000 files, more than a run that is kept" "+5 ms, +1 ms" "$(python3 -c "print('%+.1f ms (%.1f; a plain mount %.1f)' % ($view - $kept, $view, $with))")"
many=$("$program" --data-dir "$work/root" run -d --name many -- sh -c 'for i in $(seq 100); do sh -c "while :; do sleep 0.01; done" & done; wait')
sleep 1
paused=$(python3 - "$program" "$work/root" "$many" << 'PYTHON'
import glob, select, subprocess, sys, time
# The kernel says when the last one stands still: whoever looked again and again would take a processor from those that are to be stopped.
events = open(glob.glob(f"/sys/fs/cgroup/**/cofferdam/*/{sys.argv[3]}/cgroup.events", recursive=True)[0], "rb", buffering=0)
said = select.poll()
said.register(events, select.POLLPRI)
def frozen():
    events.seek(0)
    return b"frozen 1" in events.read()
taken = []
for _ in range(9):
    begun = time.monotonic()
    command = subprocess.Popen([sys.argv[1], "--data-dir", sys.argv[2], "pause", "many"], stdout=subprocess.DEVNULL)
    while not frozen(): said.poll(100)
    taken.append((time.monotonic() - begun) * 1000)
    command.wait()
    subprocess.run([sys.argv[1], "--data-dir", sys.argv[2], "resume", "many"], stdout=subprocess.DEVNULL)
    time.sleep(0.1)
print(sorted(taken)[len(taken) // 2])
PYTHON
)
row "pause, from the command to the last of 100 processes standing still" "20 ms, 5 ms" "$(python3 -c "print('%.1f ms' % $paused)")"
"$program" --data-dir "$work/root" rm -f many > /dev/null
