//! Directory images that try to lead a mount or a lookup out of the sandbox (B5).

use crate::with_kit;
use cofferdam_engine::conformance::Kit;
use cofferdam_engine::{ExitStatus, Mount};
use cofferdam_model::ImageRef;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A root file system without programs; busybox is mounted into it.
fn image(kit: &Kit<'_>, name: &str) -> PathBuf {
    let root = kit.host_path(name);
    for directory in ["usr/bin", "etc", "root"] {
        fs::create_dir_all(root.join(directory)).expect("made");
    }
    for (link, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin")] {
        symlink(target, root.join(link)).expect("linked");
    }
    root
}

fn starts(change: impl Fn(&Path), script: &str, expected: &str) {
    with_kit(async |kit| {
        let root = image(kit, "image");
        change(&root);
        let image = cofferdam_trust::resolve(&ImageRef::Directory(root.clone()), &kit.directory).expect("an image");
        let user = image.user(None).expect("a user");
        let busybox = kit.mount_source(Path::new("/bin/busybox")).expect("busybox-static is installed");
        let made = kit
            .sandbox(|spec| {
                spec.image = image;
                spec.user = user;
                spec.mounts.push(Mount { source: busybox, target: "/usr/bin/busybox".into(), writable: false });
            })
            .await
            .expect("made");
        let ran = made.main(&["/usr/bin/busybox", "sh", "-c", script]).await.expect("ran");
        made.delete().await.expect("deleted");
        assert_eq!((ran.status, ran.out.trim()), (ExitStatus::Code(0), expected), "{}", ran.err);
    });
}

const SAME: &str = "busybox=/usr/bin/busybox; $busybox stat -c %t:%T /dev/null; $busybox test -d /proc/1 && $busybox echo proc";

#[test]
fn ordinary() {
    starts(|_| {}, SAME, "1:3\nproc");
}

/// CVE-2026-41579, CVE-2025-52565: `/dev` is a link.
#[test]
fn dev_is_a_link() {
    for target in ["/etc", "../../../../tmp", "proc"] {
        starts(|root| symlink(target, root.join("dev")).expect("linked"), SAME, "1:3\nproc");
    }
}

#[test]
fn proc_and_sys_are_links() {
    starts(|root| ["proc", "sys"].iter().for_each(|name| symlink("/etc", root.join(name)).expect("linked")), SAME, "1:3\nproc");
}

/// CVE-2025-31133: `/dev/null` is something else.
#[test]
fn null_is_a_link() {
    let change = |root: &Path| {
        fs::create_dir(root.join("dev")).expect("made");
        symlink("/proc/sys/kernel/core_pattern", root.join("dev/null")).expect("linked");
    };
    starts(change, SAME, "1:3\nproc");
}

#[test]
fn etc_files_are_links_and_pipes() {
    let change = |root: &Path| {
        for name in ["passwd", "group", "hosts", "resolv.conf", "hostname"] {
            symlink("../../../../../../etc/shadow", root.join("etc").join(name)).expect("linked");
        }
    };
    starts(change, "/usr/bin/busybox hostname; /usr/bin/busybox cat /etc/hostname", "conformance\nconformance");
    let change = |root: &Path| {
        let status = std::process::Command::new("mkfifo").arg(root.join("etc/passwd")).status();
        assert!(status.expect("mkfifo").success());
    };
    starts(change, "/usr/bin/busybox id -u", "10001");
}

#[test]
fn etc_is_a_link() {
    let change = |root: &Path| {
        fs::remove_dir(root.join("etc")).expect("removed");
        symlink("/root", root.join("etc")).expect("linked");
    };
    starts(change, "/usr/bin/busybox cat /etc/hostname", "conformance");
}

#[test]
fn a_huge_account_file_is_no_account_file() {
    let change = |root: &Path| fs::write(root.join("etc/passwd"), "agent:x:0:0::/:\n".repeat(200_000)).expect("written");
    starts(change, "/usr/bin/busybox id -u", "10001");
}
