# What is tried on another kernel: see boot.sh. Every line that does not hold is told; the status is how many.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
failed=0
uname -r
cp /mnt/try/cofferdam /usr/local/bin/
chmod 755 /usr/local/bin/cofferdam

# it WHAT STATUS TEXT COMMAND...: ends with that status, and says that text.
it() {
    what=$1 status=$2 text=$3
    shift 3
    said=$("$@" 2>&1)
    got=$?
    if [ "$got" = "$status" ] && case $said in *"$text"*) true ;; *) false ;; esac; then
        echo "holds: $what"
    else
        failed=$((failed + 1))
        printf 'DOES NOT HOLD: %s: status %s instead of %s, and said:\n%s\n' "$what" "$got" "$status" "$said"
    fi
}

everything() {
    it "$1: a command runs" 3 hello $2 cofferdam run -- sh -c 'echo hello; exit 3'
    it "$1: memory is limited" 137 "out of memory" $2 cofferdam run --memory 64MiB -- python3 -c 'x = bytearray(500_000_000)'
    it "$1: processes are limited" 0 "Cannot fork" $2 cofferdam run --pids 20 -- sh -c '(for i in $(seq 50); do sleep 1 & done; wait); true'
    it "$1: nothing gets out" 0 "0 open" $2 cofferdam escape-test --only-contained
    it "$1: a volume keeps what is written" 0 "" $2 cofferdam run -v kept:/data -- sh -c 'echo kept > /data/x'
    it "$1: a volume is there again" 0 kept $2 cofferdam run -v kept:/data -- cat /data/x
    it "$1: a repository is worked on in a copy" 0 "1 files differ" $2 cofferdam run --name repo --repo repo -- sh -c 'echo new > /workspace/repo/file'
    it "$1: its changes come back" 0 "+new" $2 cofferdam diff repo
    it "$1: rm of an ended one" 0 repo $2 cofferdam rm repo
    it "$1: a detached one starts" 0 "" $2 cofferdam run -d --name bg -- sleep 1000
    it "$1: exec" 5 inside $2 cofferdam exec bg sh -c 'echo inside; exit 5'
    it "$1: pause" 0 bg $2 cofferdam pause bg
    it "$1: resume" 0 bg $2 cofferdam resume bg
    $2 cofferdam ssh-config > /tmp/ssh_config
    it "$1: ssh" 6 inside $2 ssh -F /tmp/ssh_config bg.cofferdam 'echo inside; exit 6'
    it "$1: rm" 0 bg $2 cofferdam rm -f bg
}

mkdir -p /root/repo /home/ada/repo
echo old > /root/repo/file
echo old > /home/ada/repo/file
chown -R ada: /home/ada/repo
cd /root || exit 99
everything root ""
it "root: every control is enforced" 0 "cpu limit" cofferdam engine info
it "root: a disk beyond half the memory" 0 "" cofferdam run --memory 128MiB --disk 256MiB -- sh -c 'head -c 150M /dev/zero > /workspace/x'

# On a daemon.
systemctl stop docker docker.socket 2> /dev/null
dockerd --iptables=false > /mnt/try/dockerd 2>&1 &
for _ in $(seq 100); do docker version > /dev/null 2>&1 && break; sleep 1; done
mkdir -p /tmp/base/bin /tmp/base/etc /tmp/base/tmp /tmp/base/workspace
echo kept > /tmp/base/workspace/kept
cp "$(command -v busybox)" /tmp/base/bin/busybox
for name in sh sleep cat dd ls id; do ln -s busybox "/tmp/base/bin/$name"; done
cofferdam image import /tmp/base base:1
docker="cofferdam run --engine docker --image base:1"

# What the image has where it can be written, and what is written there.
changes() {
    it "$1: what the image has" 0 kept $docker -- cat /workspace/kept
    it "$1: one that writes" 0 "" $docker -d -u root --name written -- sh -c 'rm /workspace/kept; echo x > /etc/new; sleep 1000'
    sleep 5
    it "$1: what it changed" 0 "D /workspace/kept" cofferdam diff written
    it "$1: what it changed of the root" 0 "A /etc/new" cofferdam diff written
    it "$1: rm of one that writes" 0 written cofferdam rm -f written
}

it "docker: a command runs" 3 hello $docker -- sh -c 'echo hello; exit 3'
for _ in 1 2 3; do
    it "docker: memory is limited" 137 "out of memory" $docker --memory 64MiB -- dd if=/dev/zero of=/dev/null bs=500M count=1
done
it "docker: nothing gets out" 0 "0 open" cofferdam escape-test --only-contained --engine docker --image base:1
it "docker: a volume is the same" 0 kept $docker -v kept:/data -- cat /data/x
it "docker: a detached one starts" 0 "" $docker -d --name bg -- sleep 1000
it "docker: exec" 5 inside cofferdam exec bg sh -c 'echo inside; exit 5'
it "docker: rm" 0 bg cofferdam rm -f bg
changes docker
# A gate beside each: splitting a network and writing to a proc file system that is mounted nowhere has to pass the daemon's filter and AppArmor.
echo 'docker: {gate: sidecar}' > /tmp/beside.yaml
beside="env COFFERDAM_CONFIG_PATH=/tmp/beside.yaml $docker --allow site.test"
it "docker: a gate beside it" 0 "lo:" $beside -- sh -c 'cat /proc/net/dev; cat /proc/net/route | grep -q eth0 && exit 1; exit 0'
it "docker: nothing else beside it" 1 "" $beside -- cat /no/such/file
kill %1
wait
# One that keeps images in containerd's store, by digests of its own (Docker 24 on can, 29 does).
echo '{"features": {"containerd-snapshotter": true}}' > /tmp/daemon.json
export DOCKER_HOST=unix:///run/docker-of-containerd.sock
dockerd --config-file /tmp/daemon.json -H "$DOCKER_HOST" --data-root /var/lib/docker-of-containerd --pidfile /run/docker-of-containerd.pid --iptables=false > /mnt/try/dockerd-of-containerd 2>&1 &
second=$!
for _ in $(seq 100); do grep -q 'API listen' /mnt/try/dockerd-of-containerd && break; sleep 1; done
if grep -q containerd-snapshotter=true /mnt/try/dockerd-of-containerd; then
    it "docker, containerd's store: a command runs" 3 hello $docker -- sh -c 'echo hello; exit 3'
    it "docker, containerd's store: an image is there already" 0 already cofferdam image load --engine docker base:1
    changes "docker, containerd's store"
    it "docker, containerd's store: nothing gets out" 0 "0 open" cofferdam escape-test --only-contained --engine docker --image base:1
else
    echo "not tried: no daemon answers that has containerd's store"
fi
kill "$second"
wait
unset DOCKER_HOST

# As a user in a session of systemd's, with groups of its own.
loginctl enable-linger ada
for _ in $(seq 100); do [ -S /run/user/1000/bus ] && break; sleep 1; done
user="setpriv --reuid 1000 --regid 1000 --init-groups env HOME=/home/ada USER=ada XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus"
cd /home/ada || exit 99
everything "a user" "$user systemd-run --user --scope --quiet -p Delegate=yes"
it "a user: the kernel limits memory and processes" 0 "" $user systemd-run --user --scope --quiet -p Delegate=yes cofferdam run --require 'memory limit,pids limit,exec groups' -- true
it "a user: root inside has others beside it" 0 "uid=0(root)" $user cofferdam run -u root -- id

# As a user who has logged in, and has no group but the login's: systemd is asked for one.
as_ada() { su - ada -c "$(printf '%q ' "$@")"; }
everything "a login" as_ada
it "a login: the kernel limits memory, processes and CPU" 0 "" as_ada cofferdam run --require 'memory limit,pids limit,cpu limit,exec groups' -- true
it "a login: doctor names no group that is missing" 0 "" as_ada sh -c '! cofferdam doctor | grep "no cgroup"'
it "a login: engine info has limits" 0 "" as_ada sh -c '! cofferdam engine info | grep "no cgroup"'
it "a login: no scope is left" 0 "" as_ada sh -c '! systemctl --user list-units --all "cofferdam-*" | grep scope'
it "without a session: it is asked all the same" 0 "" setpriv --reuid 1000 --regid 1000 --init-groups env -u XDG_RUNTIME_DIR HOME=/home/ada \
    cofferdam run --require 'memory limit' -- true

# A home directory on NFS.
mkdir -p /srv/homes/ada /net/homes
cp -a /home/ada/repo /srv/homes/ada/
chown -R ada: /srv/homes/ada
echo '/srv/homes 127.0.0.1(rw,fsid=1,no_subtree_check)' > /etc/exports
modprobe nfsd
systemctl start nfs-server
exportfs -ra
if mount -t nfs -o vers=4.2 127.0.0.1:/srv/homes /net/homes; then
    nfs="$user HOME=/net/homes/ada"
    cd /net/homes/ada || exit 99
    everything "NFS home" "$nfs"
    cp -r /tmp/base /srv/base
    chmod 555 /srv/base/bin /srv/base/etc
    it "NFS home: an image is imported" 0 "" $nfs cofferdam image import /srv/base base:1
    it "NFS home: an image is run" 0 inside $nfs cofferdam run --image base:1 -- sh -c 'echo inside > /tmp/x; cat /tmp/x'
    it "NFS home: root inside" 0 "uid=0" $nfs cofferdam run -u root --image base:1 -- id
    it "NFS home: nothing is left" 0 "" $nfs cofferdam prune
    it "NFS home: doctor" 0 "" $nfs cofferdam doctor
    it "NFS home: an image is removed" 0 "" $nfs cofferdam image rm base:1
    it "NFS home: a volume is removed" 0 "" $nfs cofferdam volume rm kept
    it "NFS home: no sandbox's directory is left" 0 "" $nfs sh -c '! ls -A .local/share/cofferdam/sandboxes | grep .'
    cd /
    umount /net/homes
else
    failed=$((failed + 1))
    echo "DOES NOT HOLD: there is no NFS here"
fi

# AppArmor's profiles, where kernel and parser know user namespaces.
cd /home/ada || exit 99
profile() {
    printf 'abi <abi/4.0>,\nprofile cofferdam /usr/local/bin/cofferdam %s {\n%s\n}\n' "$1" "$2" > /etc/apparmor.d/cofferdam
    apparmor_parser -r /etc/apparmor.d/cofferdam
}
others="file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, dbus, mqueue, change_profile,"
if [ -e /etc/apparmor.d/abi/4.0 ] && profile "flags=(attach_disconnected)" "$others"; then
    it "AppArmor: the profile that forbids it is named" 125 "AppArmor's profile cofferdam forbids user namespaces" as_ada cofferdam run -- true
    it "AppArmor: doctor names it" 3 "add the rule 'userns,'" as_ada cofferdam doctor
    profile "flags=(unconfined)" "userns,"
    it "AppArmor: with the guide's profile it may" 0 cofferdam as_ada cofferdam run -- sh -c 'cat /proc/self/attr/current'
else
    echo "not here: AppArmor's profiles with user namespaces"
fi
# A kernel without overlays.
echo 'install overlay /bin/false' > /etc/modprobe.d/overlay.conf
for _ in $(seq 20); do rmmod overlay 2> /dev/null; grep -q overlay /proc/filesystems || break; sleep 1; done
if grep -q overlay /proc/filesystems; then
    failed=$((failed + 1))
    echo "DOES NOT HOLD: overlays cannot be taken away here"
else
    cd /root || exit 99
    everything "root without overlays" ""
    it "root without overlays: an image" 0 inside cofferdam run --image base:1 -- sh -c 'echo inside > /tmp/x; cat /tmp/x'
    it "root without overlays: a disk beyond half the memory" 125 "no overlay" cofferdam run --memory 128MiB --disk 256MiB -- true
    cd /home/ada || exit 99
    everything "a user without overlays" "$user"
    it "a user without overlays: doctor says so" 0 "copied into memory" $user cofferdam doctor
fi
echo "$failed things do not hold"
exit "$failed"
