#!/bin/sh
# Boots Debian's kernel (the release named: bookworm has 6.1, trixie 6.12) with pure control groups version 2 and systemd, and tries the released binary there,
# as root and as an ordinary user. Needs root, qemu-system-x86, debootstrap, e2fsprogs. Without KVM it takes about ten minutes (and no cmpxchg16b: QEMU 7.2 faults there).
#   sh xtask/kernel/boot.sh [RELEASE]
set -eu
release=${1:-bookworm}
here=$(dirname "$0")
binary=target/$(uname -m)-unknown-linux-musl/release/cofferdam
work=target/kernel
root=$work/$release
mkdir -p "$work"
if [ ! -e "$root/etc/systemd/system/try.service" ]; then
    rm -rf "$root"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,uidmap,udev,kmod,iproute2,procps,e2fsprogs,linux-image-cloud-amd64,initramfs-tools,python3-minimal,git,openssh-client,passwd,ca-certificates,busybox-static,apparmor,docker.io,nfs-kernel-server,nfs-common,iptables "$release" "$root"
    chroot "$root" useradd -m -u 1000 -s /bin/bash ada
    echo kernel > "$root/etc/hostname"
    echo '/dev/vda / ext4 defaults 0 1' > "$root/etc/fstab"
    cat > "$root/etc/systemd/system/try.service" <<'UNIT'
[Unit]
After=multi-user.target dbus.service systemd-logind.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'mkdir -p /mnt/try; mount /dev/vdb /mnt/try; bash /mnt/try/inside.sh > /mnt/try/said 2>&1; echo $? > /mnt/try/status; sync; umount /mnt/try; systemctl poweroff --force'
[Install]
WantedBy=multi-user.target
UNIT
    chroot "$root" systemctl enable try.service
fi
rm -rf "$work/root.img" "$work/try.img" "$work/try" "$work/said" "$work/status"
mkdir "$work/try"
cp "$binary" "$here/inside.sh" "$work/try/"
truncate -s 6G "$work/root.img"
mkfs.ext4 -q -d "$root" "$work/root.img"
truncate -s 1G "$work/try.img"
mkfs.ext4 -q -d "$work/try" "$work/try.img"
timeout 1500 qemu-system-x86_64 ${ACCELERATOR:--accel tcg,thread=multi -cpu max,-cx16} -m 3072 -smp 2 -display none -serial "file:$work/console" -no-reboot \
    -kernel "$(ls "$root"/boot/vmlinuz-* | head -n 1)" -initrd "$(ls "$root"/boot/initrd.img-* | head -n 1)" \
    -append "root=/dev/vda rw console=ttyS0 panic=-1 quiet systemd.show_status=0" \
    -drive "file=$work/root.img,if=virtio,format=raw" -drive "file=$work/try.img,if=virtio,format=raw" < /dev/null
debugfs -R "dump said $work/said" "$work/try.img" 2> /dev/null
debugfs -R "dump status $work/status" "$work/try.img" 2> /dev/null
cat "$work/said"
exit "$(cat "$work/status")"
