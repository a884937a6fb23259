use super::*;
use cofferdam_engine::Root;
use cofferdam_sys::ids::Ids;
use cofferdam_trust::User;
use proptest::prelude::*;
use std::path::Path;

/// Files below a directory, in this thread as it is.
fn session(root: &Path) -> Session {
    let user = User { uid: 0, gid: 0, groups: Vec::new(), name: "root".into(), home: "/home".into() };
    let root = Root { mount: File::open(root).expect("opened").into(), ids: Ids::range(0, u32::MAX) };
    Session { files: Files::of(root, user, "/start".into()), open: HashMap::new(), next: 0 }
}

/// A directory with a root in it, and a file beside that.
fn place() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(directory.path().join("root/start")).expect("made");
    std::fs::write(directory.path().join("secret"), "of the host").expect("written");
    for (name, target) in [("up", "../../secret"), ("out", "../.."), ("self", ".")] {
        std::os::unix::fs::symlink(target, directory.path().join("root/start").join(name)).expect("a link");
    }
    directory
}

fn request(kind: u8, id: u32, fill: impl FnOnce(Writer) -> Writer) -> Vec<u8> {
    fill(Writer::answer(kind, id)).finish()[4..].to_vec()
}

/// Kind and status of an answer.
fn outcome(answer: Writer) -> (u8, u32) {
    let bytes = answer.finish();
    let mut reader = Reader(&bytes[4..]);
    let kind = reader.u8().expect("a kind");
    (kind, if kind == kind::STATUS { reader.u32().and_then(|_| reader.u32()).expect("a status") } else { 0 })
}

#[test]
fn requests_and_answers() {
    let place = place();
    let mut session = session(&place.path().join("root"));
    let none = wire::Attributes::default();
    let open = |path: &'static [u8], flags: u32| request(kind::OPEN, 7, move |writer| writer.string(path).u32(flags).attributes(&none));
    assert_eq!(outcome(session.packet(&request(kind::INIT, 3, |writer| writer))).0, kind::VERSION);
    assert_eq!(outcome(session.packet(&open(b"new", 2 | 8))), (kind::HANDLE, 0));
    let write = request(kind::WRITE, 7, |writer| writer.string(&0_u32.to_be_bytes()).u64(2).string(b"text"));
    assert_eq!(outcome(session.packet(&write)), (kind::STATUS, 0));
    assert_eq!(std::fs::read(place.path().join("root/start/new")).expect("there"), b"\0\0text");
    assert_eq!(outcome(session.packet(&request(kind::CLOSE, 7, |writer| writer.string(&0_u32.to_be_bytes())))), (kind::STATUS, 0));
    assert_eq!(outcome(session.packet(&request(kind::CLOSE, 7, |writer| writer.string(&0_u32.to_be_bytes())))), (kind::STATUS, 2), "once");
    assert_eq!(outcome(session.packet(&open(b"up", 1))), (kind::STATUS, 2), "nothing is there within the root");
    assert_eq!(outcome(session.packet(&open(b"nul\0", 1))), (kind::STATUS, 5));
    assert_eq!(outcome(session.packet(&request(99, 7, |writer| writer))), (kind::STATUS, 8));
    for _ in 0..MOST_HANDLES {
        assert_eq!(outcome(session.packet(&open(b"new", 1))), (kind::HANDLE, 0));
    }
    assert_eq!(outcome(session.packet(&open(b"new", 1))), (kind::STATUS, 4), "a bound");
    let reads = request(kind::READ, 7, |writer| writer.string(&5_u32.to_be_bytes()).u64(1 << 40).u32(u32::MAX));
    assert_eq!(outcome(session.packet(&reads)), (kind::STATUS, 1));
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof!["up", "out", "self", "\\.\\.", "\\.", "secret", "[a-c]", "", "\\PC{1,3}"];
    proptest::collection::vec(part, 0..6).prop_map(|parts| parts.join("/").into_bytes())
}

proptest! {
    /// Whatever is asked, answers come, and what lies outside stays as it is.
    #[test]
    fn nothing_gets_out_and_nothing_panics(requests in proptest::collection::vec((any::<u8>(), path(), path(), any::<[u8; 16]>()), 1..40)) {
        let place = place();
        let mut session = session(&place.path().join("root"));
        for (kind, first, second, rest) in requests {
            let known = kind % 21;
            for kind in [known, kind] {
                let packet = request(kind, 1, |writer| {
                    let mut bytes = writer.string(&first).string(&second);
                    for word in rest.chunks(4) {
                        bytes = bytes.u32(u32::from_be_bytes(word.try_into().expect("four")) % 64);
                    }
                    bytes
                });
                session.packet(&packet);
                session.packet(&packet[..packet.len() / 2]);
            }
        }
        let outside: Vec<_> = std::fs::read_dir(place.path()).expect("listed").map(|entry| entry.expect("read").file_name()).collect();
        prop_assert_eq!(outside.len(), 2, "{:?}", outside);
        prop_assert_eq!(std::fs::read(place.path().join("secret")).expect("there"), b"of the host");
    }

    #[test]
    fn noise_is_answered(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let place = place();
        session(&place.path().join("root")).packet(&noise);
    }
}
