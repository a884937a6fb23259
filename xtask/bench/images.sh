#!/usr/bin/env bash
# Images beside skopeo, umoci and Docker: pull and unpack from a registry on loopback, verify, start, build. Called by `cargo xtask bench`
# with the binary, an empty directory and a Docker daemon's socket; prints rows of a Markdown document. Every contender begins without
# the image, takes turns with the others, and medians are given.
set -euo pipefail
program=$1 work=$2
export DOCKER_HOST=$3
export COFFERDAM_DATA_DIR=$work/data
docker=/usr/bin/docker
port=$((20000 + $$ % 20000)) rounds=${ROUNDS:-5}
mkdir -p "$work/registry"
printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/registry}}\nhttp: {addr: "127.0.0.1:%s"}\n' "$work" "$port" > "$work/registry.yml"
OTEL_TRACES_EXPORTER=none docker-registry serve "$work/registry.yml" >/dev/null 2>&1 &
registry=$!
trap 'kill $registry 2>/dev/null || true' EXIT
for _ in $(seq 50); do curl -s "http://127.0.0.1:$port/v2/" >/dev/null && break; sleep 0.1; done
now() { date +%s%N; }
median() { sort -n | awk '{a[NR] = $1} END {print a[int((NR + 1) / 2)]}'; }
# One figure, in milliseconds: what it does is its arguments.
timed() { local begin; begin=$(now); "$@" >/dev/null 2>>"$work/errors"; echo $((($(now) - begin) / 1000)); }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.1fx", a / b}'; }
ms() { awk -v a="$1" 'BEGIN {printf "%.0f", a / 1000}'; }

# An image of eight layers and some 200 MB as stored, made of this host's own files.
mkdir -p "$work/root/bin"
cp /bin/busybox "$work/root/bin/busybox"; ln -sf busybox "$work/root/bin/sh"; ln -sf busybox "$work/root/bin/true"
"$program" image import "$work/root" base:1 >/dev/null
mkdir -p "$work/context"
{
    echo "FROM base:1"
    for part in 1 2 3 4 5 6 7; do echo "COPY part$part /part$part"; done
} > "$work/context/Dockerfile"
find /usr/lib /usr/share /usr/bin /usr/sbin -xdev -type f -size -20M -readable 2>/dev/null | sort | awk '{print > ("'"$work"'/list" (NR % 7 + 1))}'
for part in 1 2 3 4 5 6 7; do
    mkdir -p "$work/context/part$part"
    bytes=0
    while read -r file && [ $bytes -lt 75000000 ]; do
        mkdir -p "$work/context/part$part${file%/*}"; cp "$file" "$work/context/part$part$file"
        bytes=$((bytes + $(stat -c %s "$file")))
    done < "$work/list$part"
done
"$program" image build -q --network isolated -t bench:1 "$work/context" >/dev/null
"$program" image save bench:1 "$work/image.tar"
image=127.0.0.1:$port/bench
# skopeo compresses the layers as public images are.
skopeo copy -q --dest-compress --dest-tls-verify=false "docker-archive:$work/image.tar" "docker://$image:1"
stored=$(du -sm "$work/registry" | cut -f 1)
rm -rf "$work/context" "$work/data" "$work/image.tar" "$work"/list*

# A file system of its own for each: ext4 does not use an inode again for minutes, and to look for another costs whoever comes next.
fresh() {
    umount "$work/fresh" 2>/dev/null || true
    rm -f "$work/fresh.img"; truncate -s 6G "$work/fresh.img"; mkfs.ext4 -q "$work/fresh.img"
    mkdir -p "$work/fresh"; mount -o loop "$work/fresh.img" "$work/fresh"; sync
}
own_docker() {
    dockerd --iptables=false --bridge=none -H "unix://$work/own.sock" --data-root "$work/fresh/docker" --exec-root "$work/own" --pidfile "$work/own.pid" >/dev/null 2>&1 &
    for _ in $(seq 100); do DOCKER_HOST=unix://$work/own.sock $docker version >/dev/null 2>&1 && break; sleep 0.2; done
}
end_docker() { kill "$(cat "$work/own.pid")"; while [ -e "$work/own.pid" ]; do sleep 0.1; done; umount "$work/fresh/docker" 2>/dev/null || true; }
pull_ours() { "$program" --data-dir "$work/fresh/data" image pull -q "$image:1"; }
pull_theirs() { skopeo copy -q --src-tls-verify=false "docker://$image:1" "oci:$work/fresh/oci:1" && umoci unpack --image "$work/fresh/oci:1" "$work/fresh/bundle"; }
pull_docker() { DOCKER_HOST=unix://$work/own.sock $docker pull -q "$image:1"; }
for _ in $(seq "$rounds"); do
    fresh; timed pull_ours >> "$work/ours"
    fresh; timed pull_theirs >> "$work/theirs"
    fresh; own_docker; timed pull_docker >> "$work/docker"; end_docker
done
umount "$work/fresh"; rm -f "$work/fresh.img"
"$program" image pull -q "$image:1" >/dev/null
ours=$(median < "$work/ours") theirs=$(median < "$work/theirs") docker_ms=$(median < "$work/docker")
echo "| | cofferdam | the other | ratio |"
echo "|---|---|---|---|"
echo "| pull and unpack $stored MB in 8 layers, against skopeo copy and umoci unpack, ms | $(ms "$ours") | $(ms "$theirs") | $(ratio "$theirs" "$ours") |"
echo "| the same against docker pull, ms | $(ms "$ours") | $(ms "$docker_ms") | $(ratio "$docker_ms" "$ours") |"

# A Dockerfile of ten steps.
mkdir -p "$work/ten"
seq 1000 > "$work/ten/data"
cat > "$work/ten/Dockerfile" <<'D'
FROM base:1
ENV A=1
WORKDIR /app
COPY data .
RUN busybox wc -l data > lines
RUN busybox seq 10000 > numbers
RUN busybox sort -r numbers > sorted
COPY data /etc/data
RUN busybox rm numbers
CMD ["sh"]
D
"$program" image import "$work/root" base:1 >/dev/null
tar -C "$work/root" -c . | $docker import - base:1 >/dev/null
build_ours() { "$program" image build -q --network isolated "$@" -t ten:1 "$work/ten"; }
build_docker() { DOCKER_BUILDKIT=1 $docker build -q --network none "$@" -t ten:1 "$work/ten"; }
for _ in $(seq "$rounds"); do
    timed build_ours --no-cache >> "$work/build"; timed build_docker --no-cache >> "$work/build-docker"
    timed build_ours >> "$work/cached"; timed build_docker >> "$work/cached-docker"
done
a=$(median < "$work/build") b=$(median < "$work/build-docker") c=$(median < "$work/cached") d=$(median < "$work/cached-docker")
echo "| build ten steps, cold, against docker build (BuildKit), ms | $(ms "$a") | $(ms "$b") | $(ratio "$b" "$a") |"
echo "| the same, nothing changed, ms | $(ms "$c") | $(ms "$d") | $(ratio "$d" "$c") |"

# Starts take turns.
for _ in $(seq 60); do
    timed "$program" run -- /bin/true >> "$work/host"; timed "$program" run --image base:1 -- /bin/true >> "$work/one"
    timed "$program" run --image "$image:1" -- /bin/true >> "$work/eight"
done
host=$(median < "$work/host") one=$(median < "$work/one") eight=$(median < "$work/eight")
echo "| start from a stored image of one layer, of eight, against host: ms more | $(awk -v a="$one" -v b="$eight" -v h="$host" 'BEGIN {printf "%+.2f, %+.2f", (a - h) / 1000, (b - h) / 1000}') | | |"
