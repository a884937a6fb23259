//! Files in and out, mounts.

use super::{Check, Kit, Verdict, check, expect};
use crate::{Mount, Transfer};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

async fn copy_in_and_out(kit: &Kit<'_>) -> Verdict {
    let source = kit.host_path("source");
    fs::create_dir_all(source.join("deep/er")).map_err(|e| e.to_string())?;
    fs::write(source.join("deep/er/file"), "contents").map_err(|e| e.to_string())?;
    symlink("deep/er/file", source.join("link")).map_err(|e| e.to_string())?;
    let made = kit.sandbox(|_| {}).await?;
    let owner = (made.spec.user.uid, made.spec.user.gid);
    let transfer = Transfer::In { source, target: "/workspace/new/place".into(), owner };
    let put = made.sandbox.transfer(transfer).await.map_err(|e| e.to_string())?;
    let script = "cd new/place && cat link && stat -c %u deep/er/file && echo more >> deep/er/file && mkfifo pipe";
    let ran = made.main(&["/bin/sh", "-c", script]).await?;
    let target = kit.host_path("target");
    let transfer = Transfer::Out { source: "/workspace/new/place".into(), target: target.clone(), most_bytes: 1 << 20 };
    let got = made.sandbox.transfer(transfer).await.map_err(|e| e.to_string())?;
    made.delete().await?;
    let text = fs::read_to_string(target.join("deep/er/file")).map_err(|e| e.to_string())?;
    expect(ran.out == "contents10001\n" && text == "contentsmore\n", || format!("{ran:?} {text:?}"))?;
    expect(put.files == 1 && got.files == 1 && got.left_out.len() == 1, || format!("{put:?} {got:?}"))
}

/// Links that lead to the host's files lead nowhere but inside; what is copied out is never a file of the host.
async fn links_stay_inside(kit: &Kit<'_>) -> Verdict {
    let secret = kit.host_path("secret");
    fs::write(&secret, "of the host").map_err(|e| e.to_string())?;
    let made = kit.sandbox(|_| {}).await?;
    let path = secret.display().to_string();
    let script = format!("ln -s {path} file; ln -s / root; ln -s ../../../../../../.. up; mkdir d; ln -s /etc d/etc");
    made.main(&["/bin/sh", "-c", &script]).await?;
    for source in ["/workspace/file", "/workspace/root", "/workspace/up"] {
        let target = kit.host_path("out");
        let transfer = Transfer::Out { source: source.into(), target: target.clone(), most_bytes: 1 << 20 };
        made.sandbox.transfer(transfer).await.map_err(|e| e.to_string())?;
        let is_link = fs::symlink_metadata(&target).map_err(|e| e.to_string())?.is_symlink();
        expect(is_link, || format!("{source} was followed"))?;
    }
    let through = Transfer::Out { source: format!("/workspace/root{path}").into(), target: kit.host_path("out"), most_bytes: 1 << 20 };
    let followed = made.sandbox.transfer(through).await;
    let owner = (made.spec.user.uid, made.spec.user.gid);
    let into = kit.host_path("in");
    fs::write(&into, "overwritten").map_err(|e| e.to_string())?;
    let transfer = Transfer::In { source: into, target: format!("/workspace/root{path}").into(), owner };
    let _ = made.sandbox.transfer(transfer).await;
    made.delete().await?;
    let untouched = fs::read_to_string(&secret).map_err(|e| e.to_string())? == "of the host";
    expect(followed.is_err() && untouched, || format!("{followed:?}, untouched {untouched}"))
}

/// The workload swaps a directory and a link to the root while files are copied through that name.
async fn links_swapped_meanwhile(kit: &Kit<'_>) -> Verdict {
    const ROUNDS: usize = 200;
    let made = kit.sandbox(|_| {}).await?;
    let script = "mkdir -p real; echo inside > real/passwd; ln -s /etc fake; while :; do mv real swap; mv fake real; mv real fake; mv swap real; done";
    let _main = made.start(&["/bin/sh", "-c", script]).await?;
    let host = fs::read("/etc/passwd").map_err(|e| e.to_string())?;
    for _ in 0..ROUNDS {
        let target = kit.host_path("race");
        let transfer = Transfer::Out { source: "/workspace/real/passwd".into(), target: target.clone(), most_bytes: 1 << 20 };
        let copied = made.sandbox.transfer(transfer).await.is_ok_and(|report| report.files == 1);
        if copied && fs::read(&target).is_ok_and(|bytes| bytes == host) {
            return Err("a file of the host was copied".into());
        }
        let _ = fs::remove_file(target);
    }
    made.delete().await
}

async fn copies_are_bounded(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    made.main(&[
        "/bin/sh",
        "-c",
        "mkdir d; head -c 3000000 /dev/zero > d/large; echo x > d/small; truncate -s 1T d/sparse 2>/dev/null || true",
    ])
    .await?;
    let target = kit.host_path("bounded");
    let transfer = Transfer::Out { source: "/workspace/d".into(), target: target.clone(), most_bytes: 1 << 20 };
    let report = made.sandbox.transfer(transfer).await.map_err(|e| e.to_string())?;
    made.delete().await?;
    expect(report.files == 1 && !report.left_out.is_empty(), || format!("{report:?}"))
}

async fn mounts(kit: &Kit<'_>) -> Verdict {
    let (read_only, writable) = (kit.host_path("ro"), kit.host_path("rw"));
    for path in [&read_only, &writable] {
        fs::create_dir_all(path).map_err(|e| e.to_string())?;
        fs::write(path.join("file"), "mounted").map_err(|e| e.to_string())?;
    }
    let (ro, rw) = (kit.mount_source(&read_only)?, kit.mount_source(&writable)?);
    let root = kit.image.user(Some("0")).map_err(|e| e.to_string())?;
    let made = kit
        .sandbox(|spec| {
            spec.user = root;
            spec.mounts.push(Mount { source: ro, target: "/data/ro".into(), writable: false });
            spec.mounts.push(Mount { source: rw, target: "/home/agent/deep/rw".into(), writable: true });
        })
        .await?;
    let script =
        "cat /data/ro/file /home/agent/deep/rw/file; echo x > /data/ro/new 2>/dev/null || echo refused; echo x > /home/agent/deep/rw/new";
    let ran = made.main(&["/bin/sh", "-c", script]).await?;
    made.delete().await?;
    let owner = fs::metadata(writable.join("new")).map_err(|e| format!("{e}: {ran:?}"))?.uid();
    let own = fs::metadata(&writable).map_err(|e| e.to_string())?.uid();
    expect(ran.out == "mountedmountedrefused\n" && owner == own, || format!("{ran:?}, owner {owner}"))
}

async fn changes_do_not_reach_the_image(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox_of(Some("0")).await?;
    made.main(&["/bin/sh", "-c", "echo changed > /etc/nsswitch.conf && rm /etc/shells; mkdir /new"]).await?;
    made.delete().await?;
    let ran = kit.script("grep -c changed /etc/nsswitch.conf; test -e /new && echo new; ls -d /workspace").await?;
    expect(ran.out == "0\n/workspace\n", || format!("{ran:?}"))
}

/// All of them.
pub const CHECKS: &[Check] = &[
    check!(copy_in_and_out, "trees go in and out, with links, owners and modes"),
    check!(links_stay_inside, "links to the host's files lead nowhere but inside"),
    check!(links_swapped_meanwhile, "nor while they are swapped during the copy"),
    check!(copies_are_bounded, "a copy out stops at its budget"),
    check!(mounts, "trees of the host are there, writable only if said"),
    check!(changes_do_not_reach_the_image, "what a sandbox changes the next one does not see"),
];
