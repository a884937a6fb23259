//! Layers: what comes out is what `umoci` makes of them; what is hostile stays out. Needs root, and umoci.

use cofferdam_sys::mount::{FsOption, attr, new_fs};
use cofferdam_trust::content::{Content, sha256};
use cofferdam_trust::layout;
use cofferdam_trust::oci::Platform;
use cofferdam_trust::pull::{Puller, Silent};
use cofferdam_trust::registry::Access;
use cofferdam_trust::unpack::{Budget, UnpackError, unpack};
use cofferdam_trust::verify::{Options, TrustFile, Verifier};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use tar::{Builder, EntryType, Header};

/// An archive, entry by entry.
#[derive(Clone)]
struct Layer(Vec<u8>);

struct Writing(Builder<Vec<u8>>);

fn layer(fill: impl FnOnce(&mut Writing)) -> Layer {
    let mut writing = Writing(Builder::new(Vec::new()));
    fill(&mut writing);
    Layer(writing.0.into_inner().expect("an archive"))
}

impl Writing {
    fn raw(&mut self, name: &[u8], kind: EntryType, mode: u32, link: &[u8], data: &[u8]) -> &mut Self {
        let mut header = Header::new_gnu();
        let bytes = header.as_mut_bytes();
        bytes[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        bytes[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.append(&header, data).expect("appended");
        self
    }

    fn dir(&mut self, name: &str, mode: u32) -> &mut Self {
        self.raw(format!("{name}/").as_bytes(), EntryType::Directory, mode, b"", b"")
    }

    fn file(&mut self, name: &str, data: &str) -> &mut Self {
        self.raw(name.as_bytes(), EntryType::Regular, 0o640, b"", data.as_bytes())
    }

    fn link(&mut self, name: &str, target: &str) -> &mut Self {
        self.raw(name.as_bytes(), EntryType::Symlink, 0o777, target.as_bytes(), b"")
    }

    fn hard(&mut self, name: &str, target: &str) -> &mut Self {
        self.raw(name.as_bytes(), EntryType::Link, 0o644, target.as_bytes(), b"")
    }

    fn pax(&mut self, fields: &[(&str, &[u8])]) -> &mut Self {
        self.0.append_pax_extensions(fields.iter().copied()).expect("appended");
        self
    }
}

/// An OCI image layout of these layers: gzip, zstd and plain in turn.
fn write_layout(path: &Path, layers: &[Layer]) {
    let blobs = path.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("made");
    let put = |bytes: &[u8], media_type: &str| {
        let digest = sha256(bytes);
        fs::write(blobs.join(digest.hex()), bytes).expect("written");
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let mut listed = Vec::new();
    for (at, Layer(bytes)) in layers.iter().enumerate() {
        let kind = "application/vnd.oci.image.layer.v1.tar";
        // umoci of this age knows no zstd.
        if at % 2 == 0 {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(bytes).expect("compressed");
            listed.push(put(&gzip.finish().expect("compressed"), &format!("{kind}+gzip")));
        } else {
            listed.push(put(bytes, kind));
        }
    }
    let platform = Platform::here();
    let diff_ids: Vec<_> = layers.iter().map(|Layer(bytes)| sha256(bytes)).collect();
    let config =
        json!({"architecture": platform.architecture, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": listed});
    let mut entry = put(manifest.to_string().as_bytes(), manifest_type);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "test"});
    fs::write(path.join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string()).expect("written");
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
}

/// Everything that can be seen of a tree.
fn describe(root: &Path) -> BTreeMap<String, String> {
    let (mut seen, mut links) = (BTreeMap::new(), BTreeMap::new());
    walk(root, "", &mut seen, &mut links);
    seen
}

fn walk(root: &Path, inside: &str, seen: &mut BTreeMap<String, String>, links: &mut BTreeMap<u64, String>) {
    let mut names: Vec<String> = fs::read_dir(root.join(inside))
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    for name in names {
        let path = if inside.is_empty() { name } else { format!("{inside}/{name}") };
        let whole = root.join(&path);
        let metadata = fs::symlink_metadata(&whole).expect("there");
        let kind = metadata.file_type();
        let what = if kind.is_symlink() {
            format!("link {}", fs::read_link(&whole).expect("read").display())
        } else if kind.is_dir() {
            "directory".into()
        } else if kind.is_fifo() {
            "pipe".into()
        } else if kind.is_file() {
            let first =
                if metadata.nlink() > 1 { links.entry(metadata.ino()).or_insert_with(|| path.clone()).clone() } else { path.clone() };
            format!("file {} {} as {first}", metadata.size(), sha256(&fs::read(&whole).expect("read")).short())
        } else {
            "something".into()
        };
        let mode = if kind.is_symlink() { 0 } else { metadata.mode() & 0o7777 };
        // What nothing described has the time of its making.
        let time = if metadata.mtime() > 1_700_000_000 { "now".to_owned() } else { metadata.mtime().to_string() };
        seen.insert(path.clone(), format!("{what} {mode:o} {}:{} {time}", metadata.uid(), metadata.gid()));
        if kind.is_dir() {
            walk(root, &path, seen, links);
        }
    }
}

/// What we make of the layers.
fn ours(layout_path: &Path, directory: &Path) -> BTreeMap<String, String> {
    let content = Content::of(directory);
    let access = Access::default();
    let verifier = Verifier::new(TrustFile::default(), Options::default(), 0);
    let puller = Puller { content: &content, access: &access, verifier: &verifier, platform: Platform::here(), progress: &Silent, now: 0 };
    let name = "localhost/test:1".parse().expect("a name");
    let record = layout::load(&puller, layout_path, Some(&name)).expect("loaded").remove(0);
    let mut layers: Vec<_> = record.layers.iter().rev().map(|layer| content.open_layer(&layer.directory).expect("open")).collect();
    let empty = directory.join("empty");
    fs::create_dir_all(&empty).expect("made");
    layers.push(fs::File::open(&empty).expect("open").into());
    let options: Vec<FsOption<'_>> = layers.iter().map(|layer| FsOption::Fd("lowerdir+", layer.as_fd())).collect();
    let mount = new_fs("overlay", &options, attr::READ_ONLY).expect("an overlay");
    describe(Path::new(&format!("/proc/self/fd/{}", mount.as_raw_fd())))
}

fn theirs(layout_path: &Path, directory: &Path) -> BTreeMap<String, String> {
    let bundle = directory.join("bundle");
    let image = format!("{}:test", layout_path.display());
    let output = Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle).output().expect("umoci");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    describe(&bundle.join("rootfs"))
}

#[track_caller]
fn same_as_umoci(layers: &[Layer]) {
    let directory = tempfile::tempdir().expect("a directory");
    let layout_path = directory.path().join("layout");
    write_layout(&layout_path, layers);
    let (ours, theirs) = (ours(&layout_path, directory.path()), theirs(&layout_path, directory.path()));
    assert_eq!(ours, theirs);
}

fn base() -> Layer {
    layer(|l| {
        l.dir("usr", 0o755).dir("usr/lib", 0o755).file("usr/lib/a", "a").link("lib", "usr/lib").dir("etc", 0o750).file("etc/x", "x");
        l.dir("tmp", 0o1777)
            .file("etc/gone", "g")
            .dir("var", 0o755)
            .dir("var/log", 0o700)
            .file("var/log/one", "1")
            .file("var/log/two", "2");
    })
}

#[test]
fn plain_layers_stack() {
    same_as_umoci(&[
        base(),
        layer(|l| {
            l.dir("etc", 0o700).file("etc/x", "other").file("new", "n");
        }),
    ]);
}

#[test]
fn whiteouts_and_opaque_directories_hide() {
    same_as_umoci(&[
        base(),
        layer(|l| {
            l.dir("etc", 0o750).file("etc/.wh.gone", "").file("var/.wh.log", "");
        }),
    ]);
    same_as_umoci(&[
        base(),
        layer(|l| {
            l.dir("var", 0o755).dir("var/log", 0o711).file("var/log/.wh..wh..opq", "").file("var/log/three", "3");
        }),
    ]);
    same_as_umoci(&[
        base(),
        layer(|l| {
            l.dir("var", 0o755).file("var/.wh.log", "").dir("var/log", 0o711).file("var/log/four", "4");
        }),
    ]);
    same_as_umoci(&[
        base(),
        layer(|l| {
            l.file(".wh.lib", "").dir("lib", 0o755).file("lib/real", "r");
        }),
    ]);
}

#[test]
fn directories_that_a_layer_leaves_out_are_those_below() {
    same_as_umoci(&[
        base(),
        layer(|l| {
            l.file("tmp/x", "x").file("var/log/new", "n").file("fresh/deep/y", "y");
        }),
    ]);
}

#[test]
fn links_of_lower_layers_are_followed() {
    same_as_umoci(&[
        base(),
        layer(|l| {
            l.file("lib/b", "b");
        }),
    ]);
    same_as_umoci(&[
        base(),
        layer(|l| {
            l.link("abs", "/usr/lib");
        }),
        layer(|l| {
            l.file("abs/c", "c").dir("abs/sub", 0o755);
        }),
    ]);
    same_as_umoci(&[
        base(),
        layer(|l| {
            l.link("up", "../../usr");
        }),
        layer(|l| {
            l.file("up/lib/d", "d");
        }),
    ]);
}

#[test]
fn links_within_a_layer_are_followed() {
    same_as_umoci(&[layer(|l| {
        l.dir("real", 0o755).link("alias", "real").file("alias/x", "x").hard("y", "alias/x");
    })]);
}

#[test]
fn hard_links_are_one_file_also_across_layers() {
    same_as_umoci(&[layer(|l| {
        l.file("a", "data").hard("b", "a").hard("c", "/b");
    })]);
    same_as_umoci(&[
        base(),
        layer(|l| {
            l.hard("etc/y", "etc/x");
        }),
    ]);
}

#[test]
fn types_change_between_layers() {
    same_as_umoci(&[
        base(),
        layer(|l| {
            l.file("usr", "a file now");
        }),
    ]);
    same_as_umoci(&[
        base(),
        layer(|l| {
            l.dir("etc/x", 0o755).file("etc/x/inside", "i");
        }),
    ]);
    same_as_umoci(&[
        base(),
        layer(|l| {
            l.link("var", "etc");
        }),
        layer(|l| {
            l.file("var/through", "t");
        }),
    ]);
}

#[test]
fn long_names_pipes_and_set_id_bits_stay() {
    let long = "n".repeat(200);
    same_as_umoci(&[layer(|l| {
        l.pax(&[("path", format!("d/{long}").as_bytes())]).raw(b"short", EntryType::Regular, 0o4755, b"", b"suid");
        l.raw(b"pipe", EntryType::Fifo, 0o622, b"", b"");
        l.dir("sticky", 0o3777);
    })]);
}

#[test]
fn entries_repeated_are_the_last_of_them() {
    same_as_umoci(&[layer(|l| {
        l.file("a", "one").file("a", "two").dir("d", 0o700).dir("d", 0o755).link("s", "a").file("s", "no link");
    })]);
}

#[test]
fn sparse_files_have_their_holes_and_their_data() {
    let map: &[u8] = b"2\n0\n5\n1048576\n4\n";
    let mut data = map.to_vec();
    data.resize(512, 0);
    data.extend(b"beginend!");
    let one = |l: &mut Writing| {
        l.pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", b"2097152"),
        ]);
        l.raw(b"GNUSparseFile.0/sparse", EntryType::Regular, 0o644, b"", &data);
    };
    same_as_umoci(&[layer(one)]);
    let older: &[(&str, &[u8])] =
        &[("GNU.sparse.size", b"100"), ("GNU.sparse.numblocks", b"2"), ("GNU.sparse.map", b"10,3,50,2"), ("GNU.sparse.name", b"old")];
    same_as_umoci(&[layer(|l| {
        l.pax(older).raw(b"x", EntryType::Regular, 0o644, b"", b"abcde");
    })]);
}

#[test]
fn an_archive_without_its_last_block_is_read() {
    let Layer(mut bytes) = layer(|l| {
        l.file("a", "x");
    });
    bytes.truncate(512 + 1);
    same_as_umoci(&[Layer(bytes)]);
}

/// Unpacks into a directory that has something beside it.
fn attempt(layer: &Layer) -> (tempfile::TempDir, Result<(), UnpackError>) {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("secret"), "outside").expect("written");
    fs::create_dir(directory.path().join("root")).expect("made");
    let root = fs::File::open(directory.path().join("root")).expect("open");
    let result = unpack(layer.0.as_slice(), root.as_fd(), None, Budget { bytes: 1 << 20, entries: 1000, ratio: 10 }).map(|_| ());
    assert_eq!(fs::read_to_string(directory.path().join("secret")).expect("there"), "outside");
    let names: Vec<_> = fs::read_dir(directory.path()).expect("listed").collect();
    assert_eq!(names.len(), 2, "nothing beside the root");
    (directory, result)
}

#[track_caller]
fn refused(layer: &Layer) {
    let (_, result) = attempt(layer);
    assert!(result.is_err());
}

#[test]
fn nothing_leaves_the_root() {
    refused(&layer(|l| {
        l.file("../secret", "x");
    }));
    refused(&layer(|l| {
        l.file("a/../../secret", "x");
    }));
    refused(&layer(|l| {
        l.file("a/.wh...", "");
    }));
    refused(&layer(|l| {
        l.file(".wh.", "");
    }));
    refused(&layer(|l| {
        l.hard("x", "../secret");
    }));
    refused(&layer(|l| {
        l.raw(b"x", EntryType::Symlink, 0o777, b"", b"");
    }));
    refused(&layer(|l| {
        l.link("loop", "loop").file("loop/x", "x");
    }));
    refused(&layer(|l| {
        l.file("f", "x").file("f/below", "x");
    }));
    refused(&layer(|l| {
        l.pax(&[("path", b"../secret")]).file("x", "x");
    }));
    for target in ["..", "../", "/", "/..", "../../..", "a/../../.."] {
        let (directory, result) = attempt(&layer(|l| {
            l.link("out", target).file("out/secret", "inside").file("out/deep/secret", "inside");
        }));
        result.expect("followed inside, as a process there would");
        assert!(directory.path().join("root/secret").exists(), "{target}");
    }
    let (directory, result) = attempt(&layer(|l| {
        l.file("/secret", "absolute is from the root");
    }));
    result.expect("unpacked");
    assert!(directory.path().join("root/secret").exists());
    let (directory, result) = attempt(&layer(|l| {
        l.link("s", "../secret").file("s", "replaces the link");
    }));
    result.expect("unpacked");
    assert!(directory.path().join("root/s").symlink_metadata().expect("there").is_file());
}

#[test]
fn devices_are_left_out_and_false_whiteouts_hide_nothing() {
    let (directory, result) = attempt(&layer(|l| {
        l.raw(b"null", EntryType::Char, 0o666, b"", b"").raw(b"disk", EntryType::Block, 0o666, b"", b"");
    }));
    result.expect("unpacked");
    assert_eq!(fs::read_dir(directory.path().join("root")).expect("listed").count(), 0);
}

#[test]
fn attributes_that_overlayfs_reads_are_not_taken_from_an_image() {
    let (directory, result) = attempt(&layer(|l| {
        let fields: &[(&str, &[u8])] = &[
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.selinux", b"x"),
        ];
        l.pax(fields).dir("d", 0o755);
    }));
    result.expect("unpacked");
    let root = fs::File::open(directory.path().join("root/d")).expect("open");
    let mut names = vec![0; 1024];
    let length = rustix::fs::flistxattr(&root, &mut names).expect("listed");
    let listed = String::from_utf8_lossy(&names[..length]).into_owned();
    assert!(!listed.contains("overlay") && !listed.contains("selinux"), "{listed:?}");
}

#[test]
fn bombs_are_bounded() {
    refused(&layer(|l| {
        (0..1001).for_each(|at| {
            l.file(&format!("f{at}"), "");
        });
    }));
    refused(&layer(|l| {
        l.file("big", &"x".repeat((1 << 20) + 1));
    }));
    let sparse: &[(&str, &[u8])] = &[("GNU.sparse.size", b"99999999999999"), ("GNU.sparse.map", b"0,1"), ("GNU.sparse.name", b"s")];
    refused(&layer(|l| {
        l.pax(sparse).raw(b"x", EntryType::Regular, 0o644, b"", b"a");
    }));
    for (size, map) in [("10", "5,6"), ("10", "5,2,3,1"), ("10", "x"), ("10", "18446744073709551615,2")] {
        let fields: &[(&str, &[u8])] =
            &[("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", map.as_bytes()), ("GNU.sparse.name", b"s")];
        refused(&layer(|l| {
            l.pax(fields).raw(b"x", EntryType::Regular, 0o644, b"", b"abcdefgh");
        }));
    }
    let deep = layer(|l| {
        l.pax(&[("path", "a/".repeat(3000).as_bytes())]).raw(b"x", EntryType::Directory, 0o755, b"", b"");
    });
    refused(&deep);
}

#[test]
fn rubbish_is_no_archive() {
    for bytes in [&b"rubbish"[..], &[0xff; 2048], &[b'a'; 512]] {
        refused(&Layer(bytes.to_vec()));
    }
    let Layer(mut bytes) = layer(|l| {
        l.file("a", &"x".repeat(5000));
    });
    bytes.truncate(2000);
    refused(&Layer(bytes));
}
