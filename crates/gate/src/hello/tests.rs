use super::*;

fn counted(width: usize, bytes: &[u8]) -> Vec<u8> {
    let mut all = bytes.len().to_be_bytes()[8 - width..].to_vec();
    all.extend(bytes);
    all
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut all = kind.to_be_bytes().to_vec();
    all.extend(counted(2, body));
    all
}

fn sni(name: &str) -> Vec<u8> {
    let mut entry = vec![0];
    entry.extend(counted(2, name.as_bytes()));
    extension(SERVER_NAME, &counted(2, &entry))
}

fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend(counted(1, &[9; 32]));
    body.extend(counted(2, &[0x13, 1, 0x13, 2]));
    body.extend(counted(1, &[0]));
    body.extend(counted(2, &extensions.concat()));
    let mut message = vec![CLIENT_HELLO];
    message.extend(counted(3, &body));
    message
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|chunk| [vec![HANDSHAKE, 3, 1], counted(2, chunk)].concat()).collect()
}

fn name(text: &str) -> Hello {
    Hello::To(text.parse().expect("a name"))
}

#[test]
fn any_split_gives_the_same_name() {
    let message = hello(&[extension(0x2b, &[2, 3, 4]), sni("Example.COM"), extension(51, &[0; 1216])]);
    for size in [1, 2, 3, 5, 64, 500, 16_384] {
        let bytes = records(&message, size);
        for end in 0..bytes.len() {
            assert_eq!(look(&bytes[..end]), Hello::More, "{size} {end}");
        }
        assert_eq!(look(&bytes), name("example.com"), "{size}");
    }
}

#[test]
fn what_is_refused() {
    let bad = |extensions: &[Vec<u8>]| look(&records(&hello(extensions), 16_384));
    assert_eq!(bad(&[extension(43, &[])]), Hello::Bad("a ClientHello without a server name"));
    assert_eq!(bad(&[]), Hello::Bad("a ClientHello without a server name"));
    assert!(matches!(bad(&[sni("example.com"), extension(ENCRYPTED_HELLO, &[0; 40])]), Hello::Bad(why) if why.contains("encrypted")));
    for text in ["", "1.2.3.4", "::1", "a b", "exam\0ple.com", "ex*mple.com", "example..com", "-a.com"] {
        assert_eq!(bad(&[sni(text)]), Hello::Bad("a server name that is none"), "{text:?}");
    }
    assert!(matches!(bad(&[sni("a.example"), sni("b.example")]), Hello::Bad(why) if why.contains("twice")));
    let two = [vec![0], counted(2, b"a.example"), vec![0], counted(2, b"b.example")].concat();
    assert_eq!(bad(&[extension(SERVER_NAME, &counted(2, &two))]), Hello::Bad("more than one server name"));
    assert_eq!(
        bad(&[extension(SERVER_NAME, &counted(2, &[&[1][..], &counted(2, b"a.example")].concat()))]),
        Hello::Bad("a server name of an unknown kind")
    );
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x\r\n", &[22, 2, 0], &[21, 3, 1, 0, 2, 1, 0], &[0x80, 0x2e, 1]] {
        assert_eq!(look(bytes), Hello::Bad("no TLS"), "{bytes:?}");
    }
    assert!(matches!(look(&[22, 3, 1, 0, 0]), Hello::Bad(_)), "an empty record");
    assert!(matches!(look(&[22, 3, 1, 0x40, 1]), Hello::Bad(_)), "too long a record");
    assert!(matches!(look(&[22, 3, 1, 0, 4, 2, 0, 0, 1]), Hello::Bad(_)), "a ServerHello");
    assert!(matches!(look(&[22, 3, 1, 0, 4, 1, 0, 0x40, 1]), Hello::Bad(_)), "too long a message");
    let mut message = hello(&[sni("example.com")]);
    message.push(0);
    let bytes = records(&message, 16_384);
    for arrived in [bytes.len(), bytes.len() - 1, 20] {
        assert!(matches!(look(&bytes[..arrived]), Hello::Bad(why) if why.contains("behind")), "whatever has come of it: {arrived}");
    }
}

/// Whatever is cut or changed, the parser ends and takes no other name for the right one.
#[test]
fn changed_bytes_are_survived() {
    let bytes = records(&hello(&[sni("example.com"), extension(51, &[5; 60])]), 100);
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            let _ = look(&changed);
            changed.truncate(at);
            assert!(matches!(look(&changed), Hello::More | Hello::Bad(_)));
        }
    }
}

proptest::proptest! {
    /// Any bytes, and any bytes behind a beginning that looks right.
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
        let _ = look(&bytes);
        let mut inside = vec![CLIENT_HELLO];
        inside.extend(counted(3, &bytes));
        let _ = look(&records(&inside, 100));
    }

    /// However it is cut into records, and whatever extensions stand around it, the name is the same.
    #[test]
    fn the_name_is_found(size in 1usize..400, before in 0usize..300, after in 0usize..300, label in "[a-z0-9]{1,20}") {
        let host = format!("{label}.example");
        let bytes = records(&hello(&[extension(0x2b, &vec![1; before]), sni(&host), extension(51, &vec![2; after])]), size);
        proptest::prop_assert_eq!(look(&bytes), name(&host));
        proptest::prop_assert_eq!(look(&bytes[..bytes.len() - 1]), Hello::More);
    }
}
