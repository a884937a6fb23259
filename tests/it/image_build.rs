//! Dockerfiles: built by us and by Docker, the trees compared file by file; built twice, the same bytes.

use cofferdam_tests::docker::Docker;
use cofferdam_tests::registry::busybox_root;
use cofferdam_tests::{Home, ended};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A context with something of everything in it.
fn context(path: &Path) {
    for directory in ["src/inner", "conf.d", "node_modules/x", "empty"] {
        fs::create_dir_all(path.join(directory)).expect("made");
    }
    let files = [
        ("src/main.py", "print(1)\n"),
        ("src/util.py", "x = 1\n"),
        ("src/inner/data.txt", "data\n"),
        ("src/skip.pyc", "skip"),
        ("conf.d/a.conf", "a\n"),
        ("conf.d/b.conf", "b\n"),
        ("node_modules/x/y.js", "y"),
        ("run.sh", "#!/bin/sh\necho run\n"),
        ("README.md", "read me\n"),
        ("with space.txt", "space\n"),
        (".dockerignore", "# comment\n**/*.pyc\nnode_modules\n!node_modules/keep\n*.md\n"),
    ];
    for (name, text) in files {
        fs::write(path.join(name), text).expect("written");
    }
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("set");
    fs::set_permissions(path.join("conf.d/b.conf"), fs::Permissions::from_mode(0o600)).expect("set");
    std::os::unix::fs::symlink("main.py", path.join("src/link.py")).expect("linked");
    let tar = ended(
        Command::new("tar")
            .args(["-C", &path.display().to_string(), "--owner=7", "--group=8", "--mtime=@1000000000", "--sort=name", "-czf"])
            .arg(path.join("arch.tar.gz"))
            .args(["src/inner", "run.sh"]),
    );
    assert_eq!(tar.code, 0, "{tar:?}");
    let xz = ended(Command::new("sh").args(["-c", &format!("cd {} && gunzip -c arch.tar.gz | xz -c > arch.tar.xz", path.display())]));
    assert_eq!(xz.code, 0, "{xz:?}");
}

/// In the styles of public projects.
const DOCKERFILES: &[(&str, &str)] = &[
    ("plain", "FROM base:1\nCOPY . /app\n"),
    ("shell and exec", "FROM base:1\nRUN echo shell > /a && chmod 600 /a\nRUN [\"sh\", \"-c\", \"echo exec > /b\"]\n"),
    ("workdir", "FROM base:1\nWORKDIR /srv\nWORKDIR sub/dir\nRUN pwd > where\nCOPY run.sh ./\nCOPY run.sh here/\n"),
    (
        "env and arg",
        "ARG TAG=1\nFROM base:${TAG}\nARG NAME=world\nARG EMPTY\nENV GREETING=\"hello ${NAME}\" OTHER=x\\ y\nENV OLD style value\nRUN echo \"$GREETING|$OTHER|$OLD|${EMPTY:-none}\" > /env\n",
    ),
    (
        "users",
        "FROM base:1\nRUN mkdir /data && chown web /data\nUSER web\nWORKDIR /data\nRUN id > who && touch mine\nCOPY --chown=web:web run.sh /data/\n",
    ),
    ("chmod", "FROM base:1\nRUN mkdir -m 1777 /sticky && touch /s && chmod 4755 /s && mkdir /g && chmod 2775 /g\n"),
    ("directories", "FROM base:1\nCOPY src /a\nCOPY src/ /b/\nCOPY src/inner src/main.py /c/\nCOPY empty /d\n"),
    ("wildcards", "FROM base:1\nCOPY conf.d/*.conf /etc/conf/\nCOPY src/m?in.py src/[u-z]*.py /w/\n"),
    ("json form", "FROM base:1\nCOPY [\"with space.txt\", \"/s p/\"]\n"),
    ("single files", "FROM base:1\nCOPY run.sh /bin/renamed\nCOPY run.sh /app\nCOPY run.sh /app/file\n"),
    ("links", "FROM base:1\nRUN ln -s /app /alias && ln /app/file /app/hard\nCOPY src /links\nRUN echo more >> /alias/file\n"),
    ("through links", "FROM base:1\nCOPY run.sh /lib/run.sh\nCOPY src/inner /lib/inner\n"),
    ("removal", "FROM base:1\nRUN rm /app/file && rm -r /tmp\nRUN mkdir /app/file && echo x > /app/file/now\n"),
    ("replacement", "FROM base:1\nRUN rm -r /app && echo file > /app\n"),
    ("opaque", "FROM base:1\nRUN mkdir -p /o/a/b && echo 1 > /o/a/one\nRUN rm -r /o/a && mkdir /o/a && echo 2 > /o/a/two\n"),
    (
        "multi stage",
        "FROM base:1 AS build\nRUN mkdir /out && echo built > /out/bin && chmod 755 /out/bin && chown 5:6 /out/bin\nFROM base:1\nCOPY --from=build /out /opt\nCOPY --from=0 /out/bin /usr/\n",
    ),
    ("stage on stage", "FROM base:1 AS one\nRUN echo 1 > /one\nFROM one AS two\nRUN echo 2 > /two\nFROM two\nRUN cat /one /two > /three\n"),
    ("from scratch", "FROM base:1 AS b\nFROM scratch\nCOPY --from=b /bin/busybox /bin/busybox\nCOPY src/inner /data/\n"),
    ("continued", "FROM base:1\nRUN echo one > /c && \\\n    # a comment\n    echo two >> /c && \\\n\n    echo three >> /c\n"),
    ("quotes", "FROM base:1\nRUN echo \"a  b\" 'c $HOME' > /q; echo \\$X >> /q\nLABEL one=\"1 2\" two=3\n"),
    ("add archive", "FROM base:1\nADD arch.tar.gz /un/\nADD run.sh /un/plain\n"),
    ("add xz archive", "FROM base:1\nADD arch.tar.xz /un/\n"),
    ("shell", "FROM base:1\nSHELL [\"/bin/sh\", \"-e\", \"-c\"]\nRUN echo $- > /flags\n"),
    (
        "volume and expose",
        "FROM base:1\nVOLUME [\"/vol\"]\nEXPOSE 80 443/tcp 53/udp\nRUN echo kept > /app/kept\nHEALTHCHECK --interval=5s CMD true\nSTOPSIGNAL SIGINT\n",
    ),
    (
        "many small steps",
        "FROM base:1\nRUN echo 1 > /1\nRUN echo 2 > /2\nRUN rm /1\nRUN echo 3 > /1\nRUN mv /2 /4\nRUN cp /bin/busybox /5 && rm /5\n",
    ),
    ("deep", "FROM base:1\nRUN mkdir -p /a/b/c/d/e && touch /a/b/c/d/e/f && touch /a/b/.hidden\nRUN rm -r /a/b/c\n"),
    ("pipes and names", "FROM base:1\nRUN mkdir '/sp ace' && echo x > '/sp ace/ü' && touch /-dash\n"),
    ("onbuild", "FROM base:1 AS parent\nONBUILD RUN echo trigger > /trigger\nFROM base:1\nRUN true\n"),
];

/// Everything of an archive of a whole root: kind, mode, owner, size, contents, in order.
const DESCRIBE: &str = r#"
import sys, tarfile, hashlib
t = tarfile.open(fileobj=sys.stdin.buffer, mode="r|*")
skip = ("dev", "proc", "sys", ".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab")
groups, lines = {}, []
for m in t:
    n = m.name[2:] if m.name.startswith("./") else m.name
    n = n.rstrip("/")
    if n in ("", ".") or any(n == s or n.startswith(s + "/") for s in skip): continue
    data = hashlib.sha256(t.extractfile(m).read()).hexdigest()[:12] if m.isreg() else ""
    kind = "file" if m.isreg() or m.islnk() else "dir" if m.isdir() else "link" if m.issym() else "pipe" if m.isfifo() else "other"
    mode = 0 if m.issym() else m.mode
    if m.islnk(): data = groups.get(m.linkname.removeprefix("./").lstrip("/"), "?")
    groups[n] = data
    lines.append(f"{n!r} {kind} {mode:o} {m.uid}:{m.gid} {data} {m.linkname if m.issym() else ''}")
print("\n".join(sorted(lines)))
"#;

fn describe(command: &str) -> String {
    let described = ended(Command::new("sh").args(["-c", &format!("{command} | python3 -c \"$DESCRIBE\"")]).env("DESCRIBE", DESCRIBE));
    assert_eq!(described.code, 0, "{command}: {described:?}");
    described.out
}

#[test]
pub fn images_are_what_docker_builds() {
    let home = Home::new();
    busybox_root(&home.path("root"));
    let root = home.path("root").display().to_string();
    home.ok(&["image", "import", &root, "base:1"]);
    let docker = Docker::start();
    docker.ok(&format!("tar -C {root} --numeric-owner -c . | docker import - base:1"));
    let place = home.path("context");
    fs::create_dir(&place).expect("made");
    context(&place);
    let mut different = Vec::new();
    for (at, (name, text)) in DOCKERFILES.iter().enumerate() {
        fs::write(place.join("Dockerfile"), text).expect("written");
        let shown = place.display().to_string();
        // What is not copied must not differ either: the Dockerfile is in the context of both.
        home.ok(&["image", "build", "-q", "-t", &format!("case:{at}"), &shown]);
        docker.ok(&format!("DOCKER_BUILDKIT=1 docker build -q --network none -t case:{at} {shown}"));
        let archive = home.path("case.tar").display().to_string();
        home.ok(&["image", "save", &format!("case:{at}"), &archive]);
        docker.ok(&format!("docker load -q -i {archive} >/dev/null"));
        let export = |image: &str| {
            docker.describe(&format!("c=$(docker create {image} x) && docker export $c && docker rm $c >/dev/null"), describe)
        };
        let (theirs, ours) = (export(&format!("case:{at}")), export(&format!("docker.io/library/case:{at}")));
        assert!(ours.lines().count() > 1, "{name}: {ours}");
        if ours != theirs {
            different.push(format!("== {name}\n{}", difference(&ours, &theirs)));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

fn difference(ours: &str, theirs: &str) -> String {
    let only = |a: &str, b: &str, mark: char| {
        let known: std::collections::BTreeSet<&str> = b.lines().collect();
        a.lines().filter(|line| !known.contains(line)).map(|line| format!("{mark} {line}")).collect::<Vec<_>>().join("\n")
    };
    only(ours, theirs, '+') + "\n" + &only(theirs, ours, '-')
}

/// A home with `base:1`, and a context with this Dockerfile.
fn prepared(text: &str) -> (Home, String) {
    let home = Home::new();
    busybox_root(&home.path("root"));
    // An imported root keeps its times: the same ones in every home.
    let root = home.path("root").display().to_string();
    let touched =
        ended(Command::new("find").args([&root, "-exec", "touch", "-h", "-d", "@1000000000", "{}", "+"]).env("PATH", "/usr/bin:/bin"));
    assert_eq!(touched.code, 0, "{touched:?}");
    home.ok(&["image", "import", &home.path("root").display().to_string(), "base:1"]);
    let place = home.path("context");
    fs::create_dir(&place).expect("made");
    context(&place);
    fs::write(place.join("Dockerfile"), text).expect("written");
    let shown = place.display().to_string();
    (home, shown)
}

#[test]
pub fn here_documents_are_commands_scripts_and_files() {
    let text = "FROM base:1\nARG V=7\nRUN <<EOF\necho one > /h\necho two >> /h\nEOF\nRUN <<EOF\n#!/bin/sh -e\necho script $0 >> /h\nEOF\n\
                RUN cat <<'X' > /raw\n$V \"quoted\"\nX\nCOPY <<-END <<\"RAW\" /conf/\n\tv=$V \"q\"\nEND\nv=$V\nRAW\n";
    let (home, context) = prepared(text);
    home.ok(&["image", "build", "-q", "-t", "heredocs", &context]);
    let seen = home.ok(&["run", "--image", "heredocs", "cat", "/h", "/raw", "/conf/END", "/conf/RAW"]);
    assert_eq!(seen, "one\ntwo\nscript /run/cofferdam-script\n$V \"quoted\"\nv=7 \"q\"\nv=$V\n");
    let left = home.run(&["run", "--image", "heredocs", "ls", "/run"]);
    assert!(!left.out.contains("cofferdam-script"), "the script is no part of the image");
}

#[test]
pub fn the_same_input_is_the_same_image() {
    let text = "FROM base:1 AS b\nWORKDIR /w\nCOPY . .\nRUN date > /dev/null; seq 100 > n; mkdir z a; touch a/2 a/1\nFROM b\nCOPY --from=b /w/n /n\n";
    let (home, context) = prepared(text);
    let digest = |home: &Home, words: &[&str]| {
        let mut all = vec!["image", "build", "-q", "-t", "x"];
        all.extend(words);
        home.ok(&all)
    };
    let first = digest(&home, &[&context]);
    assert_eq!(digest(&home, &[&context]), first, "from the cache");
    assert_eq!(digest(&home, &["--no-cache", &context]), first, "without it");
    let later = ended(Command::new("find").args([&context, "-exec", "touch", "{}", ";"]).env("PATH", "/usr/bin:/bin"));
    assert_eq!(later.code, 0);
    assert_eq!(digest(&home, &["--no-cache", &context]), first, "times are no input");
    let (other, elsewhere) = prepared(text);
    assert_eq!(digest(&other, &[&elsewhere]), first, "nor is the place");
    fs::write(home.path("context/run.sh"), "#!/bin/sh\necho changed\n").expect("written");
    assert_ne!(digest(&home, &[&context]), first);
}

#[test]
pub fn the_cache_notices_what_matters_and_nothing_else() {
    let text = "FROM base:1\nARG A\nCOPY src /src\nRUN echo ran >&2; echo $A > /a\n";
    let (home, context) = prepared(text);
    let runs = |words: &[&str]| {
        let mut all = vec!["image", "build", "-t", "x"];
        all.extend(words);
        let ended = home.run(&all);
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.err.lines().any(|line| line == "ran")
    };
    assert!(runs(&[&context]));
    assert!(!runs(&[&context]), "nothing changed");
    fs::write(home.path("context/README.md"), "ignored\n").expect("written");
    fs::write(home.path("context/src/new.pyc"), "ignored\n").expect("written");
    fs::write(home.path("context/other"), "not copied\n").expect("written");
    assert!(!runs(&[&context]), "what is not copied");
    assert!(runs(&["--build-arg", "A=1", &context]), "an argument");
    fs::write(home.path("context/src/util.py"), "x = 2\n").expect("written");
    assert!(runs(&[&context]), "a file");
    assert!(runs(&["--no-cache", &context]));
}

#[test]
pub fn secrets_are_there_and_stay_nowhere() {
    let text = "FROM base:1\nRUN --mount=type=secret,id=token cat /run/secrets/token | wc -c > /length\n\
                RUN --mount=type=secret,id=token,target=/own test -f /own\nRUN test ! -e /run/secrets/token\n\
                RUN --mount=type=cache,target=/cache touch /cache/kept && ls /cache > /cached\nRUN --mount=type=tmpfs,target=/t touch /t/x\n\
                RUN --mount=type=bind,source=src,target=/ctx cat /ctx/util.py > /bound\n";
    let (home, context) = prepared(text);
    fs::write(home.path("token"), "very-secret-value").expect("written");
    let secret = format!("id=token,src={}", home.path("token").display());
    let built = home.run(&["image", "build", "-t", "s", "--secret", &secret, &context]);
    assert_eq!(built.code, 0, "{built:?}");
    assert_eq!(home.ok(&["run", "--image", "s", "cat", "/length", "/cached", "/bound"]), "17\nkept\nx = 1\n");
    let listed = home.run(&["run", "--image", "s", "ls", "/own", "/cache", "/t", "/ctx", "/run/secrets"]);
    assert_eq!(listed.out.trim(), "", "no mount leaves anything: {listed:?}");
    let found = ended(Command::new("grep").args(["-rl", "very-secret-value"]).arg(home.data()));
    assert_eq!(found.out, "", "not in a layer, not in the cache, not in a record");
    assert!(!built.err.contains("very-secret-value"));
}

#[test]
pub fn a_build_has_no_more_rights_than_any_sandbox() {
    let text = "FROM base:1\nRUN id -u > /id; chown 5:6 /id; (mount -t tmpfs x /tmp || echo no mount) > /m 2>&1; (wget -T 2 -q -O- http://192.0.2.1/ || echo no network) > /n 2>/dev/null\nUSER web\nRUN id -u > /tmp/web\n";
    let (home, context) = prepared(text);
    home.ok(&["image", "build", "-q", "--network", "isolated", "-t", "r", &context]);
    let seen = home.ok(&["run", "--image", "r", "-u", "0", "sh", "-c", "cat /id /n /tmp/web; grep -c 'no mount' /m; stat -c %u:%g /id"]);
    assert_eq!(seen, "0\nno network\n33\n1\n5:6\n");
}

#[test]
pub fn mistakes_are_told_with_their_line() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("FROM base:1\n\nRUN false\n", &[], "Dockerfile:3: RUN false: the command ended with exit status 1"),
        ("FROM base:1\nCOPY gone /x\n", &[], "Dockerfile:2: COPY gone /x: \"gone\" is not in the build context"),
        ("FROM base:1\nCOPY README.md /x\n", &[], ".dockerignore leaves it out"),
        ("FROM base:1\nCOPY ../../etc/shadow /x\n", &[], "is not in the build context"),
        ("FROM base:1\nCOPY --from=nosuch /x /x\n", &[], "Dockerfile:2:"),
        ("FROM base:1\nUSER nobody-here\nRUN true\n", &[], "nobody-here"),
        ("FROM base:1\nENV X=${\n", &[], "Dockerfile:2:"),
        ("FROM base:1\nRUN --mount=type=secret,id=k,required true\n", &[], "secret k is required"),
        ("FROM base:1\nRUN nosuchprogram\n", &[], "exit status 127"),
        ("FROM base:1\nRUN [\"nosuchprogram\"]\n", &[], "nosuchprogram"),
        ("FROM base:1\nEXPOSE many\n", &[], "EXPOSE many"),
        ("FROM base:1\nCOPY --chmod=xyz run.sh /\n", &[], "--chmod=xyz"),
        ("FROM --platform=linux/s390x base:1\n", &[], "linux/s390x"),
        ("FROM ${NONE}\n", &[], "an ARG without a value"),
        ("FROM base:1\n", &["--build-arg", "TYPO=1"], "declares no such ARG"),
        ("FROM base:1 AS a\n", &["--target", "b"], "has no stage \"b\"; it has a"),
        ("FROM base:1\n", &["--secret", "nonsense"], "id=NAME,src=FILE"),
        ("FROM base:1\nADD x.tar.bz2 /\n", &[], "bzip2 archives are not unpacked"),
    ];
    let (home, context) = prepared("");
    fs::write(home.path("context/x.tar.bz2"), *b"BZh91AY&").expect("written");
    std::os::unix::fs::symlink("/etc/shadow", home.path("context/outside")).expect("linked");
    for (text, words, part) in cases {
        fs::write(home.path("context/Dockerfile"), text).expect("written");
        let mut all = vec!["image", "build", "-t", "x"];
        all.extend(*words);
        all.push(&context);
        let refused = home.run(&all);
        assert!(refused.code == 1 || refused.code == 2, "{text}: {refused:?}");
        assert!(refused.err.contains(part), "{text}: {refused:?}");
    }
    fs::write(home.path("context/Dockerfile"), "FROM base:1\nCOPY outside /x\n").expect("written");
    let refused = home.run(&["image", "build", "-t", "x", &context]);
    assert!(refused.err.contains("is not in the build context"), "a link leads nowhere outside: {refused:?}");
}
