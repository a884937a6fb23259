//! One form of names, whatever they come from.

use cofferdam_policy::egress::{Allow, Deny, HostName, HostPattern};

const GOOD: &[&str] = &[
    "example.com",
    "a.b.c.d.e.example.com",
    "localhost",
    "x",
    "a-b.example",
    "a--b.example",
    "xn--bcher-kva.example",
    "_dmarc.example.com",
    "1.example.com",
    "1e100.net",
    "0x7f.example",
    "host.cofferdam.internal",
    "a_b.example",
    "4chan.org",
    "test.x1",
    "com",
];

/// Text and the form that the error proposes.
const BAD: &[(&str, Option<&str>)] = &[
    ("", None),
    (".", None),
    ("..", None),
    (".example.com", None),
    ("example..com", None),
    ("example.com.", Some("example.com")),
    ("example.com..", None),
    ("Example.com", Some("example.com")),
    ("EXAMPLE.COM", Some("example.com")),
    ("bücher.example", Some("xn--bcher-kva.example")),
    ("ｅxample.com", Some("example.com")),
    ("example。com", Some("example.com")),
    ("раураl.com", Some("xn--l-7sba6dbr.com")),
    ("exa mple.com", None),
    (" example.com", None),
    ("example.com ", None),
    ("example.com\n", None),
    ("example.com\0", None),
    ("example.com\0.evil.test", None),
    ("example.com%00.evil.test", None),
    ("example.com\u{7f}", None),
    ("example\u{200b}.com", Some("example.com")),
    ("exam\tple.com", None),
    ("-example.com", None),
    ("example-.com", None),
    ("a.-b.com", None),
    ("1.2.3.4", None),
    ("127.1", None),
    ("2130706433", None),
    ("0x7f.1", None),
    ("0x7f000001", None),
    ("0177.0.0.1", None),
    ("1.2.3.4.5", None),
    ("example.0x1", None),
    ("example.123", None),
    ("https://example.com", Some("example.com")),
    ("https://example.com/path", Some("example.com")),
    ("example.com/path", Some("example.com")),
    ("user@example.com", Some("example.com")),
    ("example.com?x", Some("example.com")),
    ("example.com#x", Some("example.com")),
    ("exa\\mple.com", None),
    ("exa;mple.com", None),
    ("exa\"mple.com", None),
    ("exa{mple}.com", None),
    ("[::1]", None),
    ("::1", None),
    ("example.com:443", None),
    ("exa!mple.com", None),
    ("exa,mple.com", None),
    ("(example.com)", None),
];

#[test]
fn names() {
    for text in GOOD {
        assert_eq!(text.parse::<HostName>().expect(text).as_str(), *text);
    }
    for (text, near) in BAD {
        let error = text.parse::<HostName>().expect_err(text);
        assert_eq!(error.near.as_deref(), *near, "{text:?}: {error}");
    }
    let label = "a".repeat(63);
    assert!(format!("{label}.example").parse::<HostName>().is_ok());
    assert!(format!("{label}a.example").parse::<HostName>().is_err());
    let long = ["abcdefg."; 31].concat() + "abcde";
    assert_eq!(long.len(), 253);
    assert!(long.parse::<HostName>().is_ok());
    assert!(format!("a{long}").parse::<HostName>().is_err());
}

/// What a client sends is as strict, but for case and one dot at the end: every entry point agrees with the file.
#[test]
fn names_from_the_wire() {
    for text in GOOD {
        for form in [(*text).to_owned(), text.to_ascii_uppercase(), format!("{text}.")] {
            assert_eq!(HostName::from_wire(&form).expect(&form).as_str(), *text);
        }
    }
    for (text, near) in BAD {
        let only_form = near.is_some() && text.is_ascii() && text.trim_end_matches('.').to_ascii_lowercase() == near.unwrap_or_default();
        assert_eq!(HostName::from_wire(text).is_ok(), only_form, "{text:?}");
    }
}

#[test]
fn patterns() {
    let below: HostPattern = "*.example.com".parse().expect("a pattern");
    for (name, expected) in [
        ("a.example.com", true),
        ("a.b.example.com", true),
        ("example.com", false),
        ("evilexample.com", false),
        ("a.example.com.evil.test", false),
        ("com", false),
    ] {
        assert_eq!(below.matches(&name.parse().expect("a name")), expected, "{name}");
    }
    for (text, near) in [
        ("*", None),
        ("*.", None),
        ("*.com", None),
        ("*.*.com", None),
        ("a.*.example.com", Some("*.example.com")),
        ("*example.com", Some("*.example.com")),
        ("*-api.example.com", Some("*.api.example.com")),
        ("**.example.com", Some("*.example.com")),
        ("*.Example.com", Some("*.example.com")),
        ("*.example.com/x", Some("*.example.com")),
        ("*.1.2.3.4", None),
    ] {
        let error = text.parse::<HostPattern>().expect_err(text);
        assert_eq!(error.near.as_deref(), near, "{text:?}: {error}");
    }
    for (text, everyones) in
        [("*.github.io", true), ("*.s3.amazonaws.com", true), ("*.co.uk", true), ("*.example.com", false), ("github.io", false)]
    {
        assert_eq!(text.parse::<HostPattern>().expect(text).is_below_public_suffix(), everyones, "{text}");
    }
}

#[test]
fn entries() {
    for (text, written) in [
        ("example.com", "example.com:443"),
        ("example.com:22", "example.com:22"),
        ("*.example.com:8443", "*.example.com:8443"),
        ("192.0.2.0/24:5432", "192.0.2.0/24:5432"),
        ("192.0.2.7:5432", "192.0.2.7/32:5432"),
        ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
        ("preset:git-hosting", "preset:git-hosting"),
    ] {
        let entry: Allow = text.parse().expect(text);
        assert_eq!(entry.to_string(), written);
        assert_eq!(entry.to_string().parse::<Allow>().expect(written), entry);
    }
    for text in [
        "example.com:",
        "example.com:0",
        "example.com:65536",
        "example.com:+1",
        "example.com:4 43",
        "example.com:443:443",
        "example.com:https",
        "192.0.2.0/24",
        "192.0.2.1/24:443",
        "192.0.2.0/33:443",
        "2001:db8::1",
        "[2001:db8::1:443",
        "[2001:db8::1]x",
        "*:443",
        "https://example.com:443",
        "",
    ] {
        assert!(text.parse::<Allow>().is_err(), "{text:?}");
    }
    for (text, written) in [
        ("example.com", "example.com"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/8:22", "10.0.0.0/8:22"),
        ("2001:db8::/32", "[2001:db8::/32]"),
    ] {
        assert_eq!(text.parse::<Deny>().expect(text).to_string(), written);
    }
    assert!("preset:packages".parse::<Deny>().is_err());
}
