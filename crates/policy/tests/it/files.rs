//! Policy files: what they mean, and where they are wrong.

use cofferdam_policy::egress::{HostName, Policy, PolicyFile, Presets, Protocol};

fn compile(text: &str) -> Result<(Policy, Vec<String>), String> {
    let presets = Presets::with_packages(vec!["packages.example:443".parse().expect("an entry")]);
    let file = PolicyFile::parse("policy.yaml", text).map_err(|error| error.to_string())?;
    file.compile(&presets).map_err(|error| error.to_string())
}

fn name(text: &str) -> HostName {
    text.parse().expect("a name")
}

#[test]
fn the_published_form() {
    let text = "version: 1
network: limited_web
allow: [\"preset:git-hosting\", \"*.example.com\", \"192.0.9.0/24:5432\", \"host.cofferdam.internal:11434\"]
deny: [bad.example.com, \"93.184.0.0/16\"]
egress:
  - host: db.internal.example
    ports: [5432, 5433]
    protocol: tcp
    tls: passthrough
    allow_private: true
";
    let (policy, warnings) = compile(text).expect("compiles");
    assert!(warnings.is_empty(), "{warnings:?}");
    let permit = policy.decide_name(&name("db.internal.example"), 5433).expect("allowed");
    assert!(permit.allow_private && permit.protocol == Protocol::Tcp && permit.rule.starts_with("egress db.internal.example"));
    assert!(policy.may_dial(&permit, "10.0.0.1".parse().expect("an address"), 5433).is_ok());
    assert!(policy.may_dial(&permit, "169.254.169.254".parse().expect("an address"), 5433).is_err());
    let permit = policy.decide_name(&name("a.example.com"), 443).expect("allowed");
    assert_eq!((permit.rule.as_str(), permit.protocol), ("*.example.com:443", Protocol::Https));
    assert!(policy.may_dial(&permit, "93.184.216.34".parse().expect("an address"), 443).is_err(), "deny wins over a name's address");
    assert!(policy.may_dial(&permit, "10.0.0.1".parse().expect("an address"), 443).is_err());
    assert_eq!(policy.decide_name(&name("github.com"), 22).expect("allowed").protocol, Protocol::Ssh);
    assert_eq!(policy.decide_name(&name("host.cofferdam.internal"), 11434).expect("allowed").protocol, Protocol::Tcp);
    let denial = policy.decide_name(&name("bad.example.com"), 443).expect_err("denied");
    assert_eq!(denial.rule.as_deref(), Some("deny bad.example.com"));
    let denial = policy.decide_name(&name("a.example.com"), 80).expect_err("denied");
    assert_eq!(denial.reason, "this name is allowed at port 443 only");
    let resolves = |text: &str| policy.resolves(&name(text)).is_ok();
    assert!(resolves("a.example.com") && !resolves("bad.example.com") && !resolves("example.com"));
    assert!(policy.decide_address("192.0.9.7".parse().expect("an address"), 5432).is_ok());
    assert!(policy.decide_address("192.0.9.7".parse().expect("an address"), 5433).is_err());
    let again: Policy = serde_json::from_str(&serde_json::to_string(&policy).expect("writes")).expect("reads");
    assert_eq!(again, policy);
    assert_eq!(again.decide_name(&name("a.example.com"), 443), policy.decide_name(&name("a.example.com"), 443));
}

#[test]
fn levels() {
    let (open, _) = compile("version: 1\nnetwork: full_web\ndeny: [bad.example, \"*.worse.example:80\"]\n").expect("compiles");
    assert!(open.decide_name(&name("anything.example"), 9999).is_ok());
    assert!(open.decide_name(&name("bad.example"), 443).is_err());
    assert!(open.decide_name(&name("a.worse.example"), 80).is_err() && open.decide_name(&name("a.worse.example"), 443).is_ok());
    assert!(open.decide_name(&name("host.cofferdam.internal"), 80).is_err(), "explicit only");
    assert!(open.decide_address("1.1.1.1".parse().expect("an address"), 53).is_ok());
    for address in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "198.18.0.9"] {
        assert!(open.decide_address(address.parse().expect("an address"), 80).is_err(), "{address}");
    }
    let (packages, _) = compile("version: 1\nnetwork: package_only\n").expect("compiles");
    assert!(packages.decide_name(&name("packages.example"), 443).is_ok());
    assert!(packages.decide_name(&name("github.com"), 443).is_err());
    let (isolated, _) = compile("version: 1\nnetwork: isolated\n").expect("compiles");
    assert!(isolated == Policy::deny_all() && isolated.decide_name(&name("example.com"), 443).is_err());
    let (_, warnings) = compile("version: 1\nnetwork: limited_web\nallow: [\"*.github.io\"]\n").expect("compiles");
    assert!(warnings.len() == 1 && warnings[0].contains("anyone can have a name"), "{warnings:?}");
}

/// Text, and what the error has to say.
#[test]
fn errors_show_the_place() {
    let head = "version: 1\nnetwork: limited_web\n";
    let cases: &[(String, &str)] = &[
        ("network: limited_web\n".into(), "policy.yaml:1:1"),
        ("version: 2\nnetwork: isolated\n".into(), "policy.yaml:1:10: version 2 is not known"),
        ("version: 1\nnetwork: open\n".into(), "policy.yaml:2:10"),
        (format!("{head}alow: [a.example]\n"), "did you mean \"allow\""),
        (format!("{head}allow:\n  - a.example\n  - \"*\"\n"), "policy.yaml:5:5: \"*\" is no host name: it stands for every name"),
        (format!("{head}allow: [\"*.com\"]\n"), "policy.yaml:3:9: \"*.com\" is no host name"),
        (format!("{head}allow: [https://a.example/x]\n"), "write \"a.example\""),
        (format!("{head}allow: [A.example]\n"), "write \"a.example\""),
        (format!("{head}allow: [a.example.]\n"), "write \"a.example\""),
        (format!("{head}allow: [bücher.example]\n"), "write \"xn--bcher-kva.example\""),
        (format!("{head}allow: [\"a.example\\0\"]\n"), "only letters, digits"),
        (format!("{head}allow: [\"a.example:99999\"]\n"), "\"99999\" is no port"),
        (format!("{head}allow: [\"10.0.0.0/8:443\"]\n"), "policy.yaml:3:1: 10.0.0.0/8 is not all public"),
        (format!("{head}allow: [\"169.254.0.0/16:80\"]\n"), "never dialled"),
        (format!("{head}allow: [\"preset:package\"]\n"), "did you mean preset:packages?"),
        (format!("{head}allow: [a.example]\ndeny: [a.example]\n"), "a.example is allowed and denied"),
        (head.into(), "policy.yaml:2:1: network limited_web reaches what is listed, and nothing is"),
        (format!("{head}allow: []\n"), "policy.yaml:2:1: network limited_web"),
        ("version: 1\nnetwork: isolated\nallow: [a.example]\n".into(), "policy.yaml:2:1: network isolated reaches nothing"),
        ("version: 1\nnetwork: full_web\nallow: [a.example]\n".into(), "full_web reaches every public destination already"),
        (format!("{head}egress: [{{host: a.example, tls: intercept}}]\n"), "policy.yaml:3:1: tls: intercept is not in this release"),
        (
            format!("{head}egress:\n  - host: a.example\n    matches: [{{methods: [GET]}}]\n"),
            "policy.yaml:5:1: matches is not in this release",
        ),
        (format!("{head}egress: [{{host: a.example, credential: {{secret: x}}}}]\n"), "credential is not in this release"),
        (format!("{head}egress: [{{host: a.example, dlp: {{on_match: block}}}}]\n"), "dlp is not in this release"),
        (format!("{head}allow: [a.example]\ngit: []\n"), "git is not in this release"),
        (format!("{head}allow: [a.example]\nbudgets: {{usd: 5}}\n"), "budgets is not in this release"),
        (format!("{head}allow: [a.example]\napprovals: {{unknown_host: ask}}\n"), "approvals is not in this release"),
        (format!("{head}egress: [{{host: a.example, ports: [0]}}]\n"), "0 is no port"),
        (format!("{head}egress: [{{host: a.example, protocol: gopher}}]\n"), "policy.yaml:3:"),
    ];
    for (text, expected) in cases {
        let error = compile(text).expect_err(text);
        assert!(error.contains(expected), "{text}\n→ {error}\nwanted: {expected}");
    }
    let empty = PolicyFile::parse("p", "version: 1\nnetwork: package_only\n").expect("parses").compile(&Presets::with_packages(Vec::new()));
    assert!(empty.expect_err("no registries").to_string().contains("--allow HOST"));
}
