//! Sandboxes on a host that has no overlays, by an engine that is told so: the same files, the same changes.

use crate::kit::install;
use crate::older_kernels::CHECKS;
use crate::{with_engine, with_kit};
use cofferdam_engine::conformance::{Kit, Made, checks};
use cofferdam_engine::{Changes, ExitStatus, View};
use cofferdam_engine_native::NativeEngine;
use cofferdam_model::Bytes;
use cofferdam_trust::changes::{Change, list};
use cofferdam_trust::content::Content;
use cofferdam_trust::layout::{NewImage, NewLayer, compose};
use cofferdam_trust::oci::{Platform, RunConfig};
use cofferdam_trust::pack::{Entry, LayerWriter, begin, commit};
use cofferdam_trust::pull::{Puller, Silent};
use cofferdam_trust::registry::Access;
use cofferdam_trust::verify::{Options, Rule, TrustFile, Verification, Verifier};
use cofferdam_trust::{VerifiedImage, stored_image};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

#[test]
fn sandboxes_are_the_same() {
    for name in CHECKS.iter().filter(|name| **name != "disk_on_disk") {
        let check = checks().into_iter().find(|check| check.name == *name).expect("the check exists");
        let verdict = with_engine(NativeEngine::copied, async |kit| (check.run)(kit).await);
        assert!(verdict.is_ok(), "{name}: {verdict:?}");
    }
}

const OURS: Entry = Entry { uid: 7, gid: 8, mode: 0o640, mtime: 1_000_000_000 };
const DIRECTORY: Entry = Entry { mode: 0o751, ..OURS };

/// Writes an entry of a layer.
fn file<W: Write>(layer: &mut LayerWriter<W>, path: &str, text: &str) {
    layer.file(Path::new(path), OURS, text.len() as u64, text.as_bytes()).expect("written");
}

/// Two layers: the upper one hides, replaces and makes opaque.
fn layers(content: &Content) -> Vec<NewLayer> {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut lower = begin(content, i64::MAX).expect("begun");
    for directory in ["bin", "w", "w/kept", "w/opaque", "w/opaque/deep", "w/replaced", "w/attributes", "w/gone"] {
        lower.directory(Path::new(directory), DIRECTORY).expect("written");
    }
    lower.file(Path::new("bin/busybox"), Entry { mode: 0o755, ..OURS }, busybox.len() as u64, busybox.as_slice()).expect("written");
    for path in ["w/kept/a", "w/kept/b", "w/opaque/hidden", "w/opaque/deep/hidden", "w/replaced/hidden", "w/gone/file", "w/hidden"] {
        file(&mut lower, path, path);
    }
    lower.hard_link(Path::new("w/kept/b2"), Path::new("w/kept/b"), OURS).expect("written");
    lower.symlink(Path::new("w/link"), OsStr::new("kept/a"), OURS).expect("written");
    lower.file(Path::new("w/large"), OURS, 3 << 20, std::io::repeat(7)).expect("written");
    let mut upper = begin(content, i64::MAX).expect("begun");
    upper.directory(Path::new("w/opaque"), DIRECTORY).expect("written");
    file(&mut upper, "w/opaque/.wh..wh..opq", "");
    file(&mut upper, "w/opaque/shown", "shown");
    upper.whiteout(Path::new("w/hidden")).expect("written");
    upper.whiteout(Path::new("w/gone")).expect("written");
    upper.directory(Path::new("w/attributes"), Entry { mode: 0o700, uid: 9, ..DIRECTORY }).expect("written");
    file(&mut upper, "w/replaced", "a file now");
    [lower, upper].map(|layer| commit(content, layer).expect("committed")).into()
}

fn image(content: &Content, layers: &[NewLayer], name: &str) -> VerifiedImage {
    let (access, verifier) = (Access::default(), Verifier::new(TrustFile::default(), Options::default(), 0));
    let puller = Puller { content, access: &access, verifier: &verifier, platform: Platform::here(), progress: &Silent, now: 0 };
    let new = NewImage {
        reference: format!("localhost/{name}:1").parse().expect("a name"),
        created: None,
        platform: Platform::here(),
        layers: layers.iter().map(NewLayer::listed).collect(),
        config: RunConfig::default(),
        history: Vec::new(),
        verified: Verification::local(Rule::Loaded, "of a test".into(), 0),
    };
    stored_image(content, &compose(&puller, new).expect("composed")).expect("stored")
}

/// Every file below `/w`: kind and mode, owner, names, size, time, target, contents.
const LISTING: &str = "cd /w && find . | sort | while read -r path; do
    if test -d \"$path\"; then stat -c '%n %f %u:%g' \"$path\"; continue; fi
    stat -c '%n %f %u:%g %s %Y %h %N' \"$path\"
    test -L \"$path\" || md5sum < \"$path\"
done";

async fn listed(kit: &Kit<'_>, image: &VerifiedImage, script: &str) -> (Made, String) {
    let programs = "for name in find sort stat md5sum rm mkdir chmod chown dd cat touch; do ln -s busybox /bin/$name; done";
    let script = format!("/bin/busybox ln -s busybox /bin/ln; {programs}; {script}");
    let user = image.user(Some("0")).expect("root");
    let made = kit.sandbox(|spec| (spec.image, spec.user) = (image.clone(), user)).await.expect("made");
    let ran = made.main(&["/bin/busybox", "sh", "-c", &script]).await.expect("ran");
    assert_eq!(ran.status, ExitStatus::Code(0), "{}{}", ran.out, ran.err);
    (made, ran.out)
}

/// What is done, and what must be found: nothing that came to be what it was again.
const DONE: &str = "cd /w; touch -d @1000000000 /tmp/time
    echo new > added; mkdir -p deep/er; echo x > deep/er/file; chmod 777 deep/er
    rm kept/a; rm -r attributes; mkdir attributes; chmod 700 attributes; chown 9:8 attributes
    chmod 600 kept/b; rm link; ln -s elsewhere link
    rm replaced; mkdir replaced; echo y > replaced/y
    printf z | dd of=large bs=1 seek=2000000 conv=notrunc 2>/dev/null; touch -d @1000000000 large
    cat opaque/shown > /tmp/x; echo other > opaque/shown; cat /tmp/x > opaque/shown; touch -d @1000000000 opaque/shown";
const FOUND: &[(&str, Change)] = &[
    ("tmp/time", Change::Added),
    ("tmp/x", Change::Added),
    ("w/added", Change::Added),
    ("w/deep", Change::Added),
    ("w/deep/er", Change::Added),
    ("w/deep/er/file", Change::Added),
    ("w/kept/a", Change::Deleted),
    ("w/kept/b", Change::Changed),
    ("w/kept/b2", Change::Changed),
    ("w/large", Change::Changed),
    ("w/link", Change::Changed),
    ("w/replaced", Change::Changed),
    ("w/replaced/y", Change::Added),
];

#[test]
fn layers_are_read_as_overlays_read_them() {
    let show = |copied: bool| {
        let change = |engine: NativeEngine| if copied { engine.copied() } else { engine };
        with_engine(change, async |kit| {
            let content = Content::of(&kit.directory);
            let (made, shown) = listed(kit, &image(&content, &layers(&content), "two"), LISTING).await;
            made.delete().await.expect("deleted");
            shown
        })
    };
    let (overlay, copy) = (show(false), show(true));
    assert!(overlay.contains("opaque/shown") && !overlay.contains("hidden") && !overlay.contains("gone"), "{overlay}");
    assert_eq!(overlay, copy);
}

#[test]
fn changes_are_what_was_changed() {
    changes_are_told(NativeEngine::copied);
}

/// Kernels before 6.15 need one more step for the sandbox's own mount of the copy.
#[test]
fn changes_are_what_was_changed_on_an_older_kernel() {
    changes_are_told(|engine| engine.staged().copied());
}

fn changes_are_told(engine: impl FnOnce(NativeEngine) -> NativeEngine) {
    with_engine(engine, async |kit| {
        let content = Content::of(&kit.directory);
        let mut layers = layers(&content);
        let first = image(&content, &layers, "two");
        let script = format!("{DONE}\n{LISTING}");
        let (made, left) = listed(kit, &first, &script).await;
        let out = kit.host_path("changes.tar");
        let write = |path: &Path| fs::File::create(path).expect("made");
        let wanted = Changes { out: write(&out), epoch: i64::MAX, leave_out: vec!["etc".into(), "bin".into()], of_view: false };
        let layer = made.sandbox.changes(wanted).await.expect("written");
        made.delete().await.expect("deleted");
        let found = list(&out, &first).expect("a layer");
        // Directories on the way are named with what is in them.
        let told: Vec<(String, Change)> = found
            .into_iter()
            .map(|(path, change)| (path.display().to_string(), change))
            .filter(|(path, _)| !["tmp", "w", "w/kept", "w/opaque"].contains(&path.as_str()))
            .collect();
        let wanted: Vec<(String, Change)> = FOUND.iter().map(|(path, change)| ((*path).to_owned(), *change)).collect();
        assert_eq!(told, wanted);
        content.adopt_blob(&out, &layer.digest).expect("in the store");
        layers.push(layer);
        let (made, shown) = listed(kit, &image(&content, &layers, "three"), LISTING).await;
        made.delete().await.expect("deleted");
        assert_eq!(left, shown);
    });
}

/// What the sandbox mounts in its root is not seen where it is compared.
#[test]
fn changes_of_one_that_runs_are_without_its_mounts() {
    with_engine(NativeEngine::copied, async |kit| {
        let made = kit.sandbox(|_| {}).await.expect("made");
        let _main = made.start(&["/bin/sh", "-c", "sleep 1000"]).await.expect("started");
        made.exec(&["/bin/sh", "-c", "echo x > /tmp/x"]).await.expect("ran");
        let out = kit.host_path("changes.tar");
        let file = fs::File::create(&out).expect("made");
        made.sandbox.changes(Changes { out: file, epoch: i64::MAX, leave_out: Vec::new(), of_view: false }).await.expect("written");
        made.delete().await.expect("deleted");
        let found: Vec<_> = list(&out, &kit.image).expect("a layer").into_keys().collect();
        assert_eq!(found, [Path::new("tmp"), Path::new("tmp/x")]);
    });
}

#[test]
fn overlays_are_found_where_they_are() {
    for change in [NativeEngine::staged, |engine| engine] {
        let engine = change(NativeEngine::new(install(), &std::env::temp_dir()).expect("an engine"));
        assert_eq!(engine.without_overlays().expect("tried"), None);
    }
}

#[test]
fn a_view_is_a_copy_and_its_changes_are_found() {
    with_engine(NativeEngine::copied, async |kit| {
        let tree = kit.host_path("tree");
        fs::create_dir_all(tree.join("src")).expect("made");
        fs::write(tree.join("src/file"), "old").expect("written");
        fs::write(tree.join("same"), "same").expect("written");
        fs::write(tree.join("gone"), "gone").expect("written");
        fs::set_permissions(tree.join("same"), fs::Permissions::from_mode(0o755)).expect("executable");
        symlink("/etc/shadow", tree.join("link")).expect("linked");
        let sparse = fs::File::create(tree.join("sparse")).expect("made");
        sparse.set_len(1 << 30).expect("long");
        let source = kit.mount_source(&tree).expect("a source");
        let made = kit.sandbox(|spec| spec.view = Some(View { source, target: "/workspace/tree".into() })).await.expect("made");
        let script = "cd tree && cat same src/file && echo new > src/file && rm gone && mkdir made && readlink link && stat -c %s sparse";
        let ran = made.main(&["/bin/sh", "-c", script]).await.expect("ran");
        assert_eq!(ran.out, format!("sameold/etc/shadow\n{}\n", 1_u64 << 30), "{}", ran.err);
        let out = kit.host_path("changes.tar");
        let file = fs::File::create(&out).expect("made");
        made.sandbox.changes(Changes { out: file, epoch: i64::MAX, leave_out: Vec::new(), of_view: true }).await.expect("written");
        made.delete().await.expect("deleted");
        let found = list(&out, &kit.image).expect("a layer");
        let told: Vec<String> = found.iter().map(|(path, change)| format!("{} {}", change.letter(), path.display())).collect();
        assert_eq!(told, ["D gone", "A made", "A src", "A src/file"]);
        assert_eq!(fs::read_to_string(tree.join("src/file")).expect("read"), "old");
        assert_eq!(fs::metadata(tree.join("gone")).expect("there").size(), 4);
    });
}

#[test]
fn what_is_too_large_is_refused() {
    let refused = |change: &dyn Fn(&Path)| {
        with_engine(NativeEngine::copied, async |kit| {
            let tree = kit.host_path("tree");
            fs::create_dir(&tree).expect("made");
            change(&tree);
            let source = kit.mount_source(&tree).expect("a source");
            let made = kit.sandbox(|spec| spec.view = Some(View { source, target: "/workspace/tree".into() })).await;
            made.err().unwrap_or_default()
        })
    };
    let available = cofferdam_sys::process::memory_available().expect("known");
    let huge = refused(&|tree| {
        let file = fs::File::create(tree.join("huge")).expect("made");
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, available / 2 + (1 << 30)).expect("room on the disk");
    });
    assert!(huge.contains("memory for a copy of the sandbox's files is used up on this host"), "{huge}");
    with_engine(NativeEngine::copied, async |kit| {
        let large = kit.sandbox(|spec| spec.limits.disk = Some(Bytes::mebibytes(512))).await;
        let why = large.err().unwrap_or_default();
        assert!(why.contains("a disk limit above half the memory limit is not possible here: there are no overlay"), "{why}");
    });
    // The same host with overlays has both.
    with_kit(async |kit| {
        kit.sandbox(|spec| spec.limits.disk = Some(Bytes::mebibytes(512))).await.expect("made").delete().await.expect("gone");
    });
}
