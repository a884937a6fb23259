//! Name servers of the operator's configuration, a real one (unbound): over UDP, over TCP where an answer is long, over TLS; and never another.

use crate::gate::Place;
use cofferdam_tests::eventually;
use cofferdam_tests::lab::{OTHER, SITE};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// One that knows names that the host's own resolver does not.
struct Unbound {
    child: Child,
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn openssl(place: &Place, words: &[&str]) {
    let status = Command::new("openssl").args(words).current_dir(place.home.path("lab")).stderr(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "openssl {words:?}");
}

impl Unbound {
    /// At the second server's address, with a certificate of `dns.test`.
    fn start(place: &Place) -> Self {
        let directory = place.home.path("lab");
        let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
        let leaf = "-subj /CN=dns.test -addext subjectAltName=DNS:dns.test -addext basicConstraints=critical,CA:FALSE";
        for words in [
            format!("{new} -keyout authority.key -out authority.pem -subj /CN=authority"),
            format!("{new} -keyout stranger.key -out stranger.pem -subj /CN=stranger"),
            format!("{new} -CA authority.pem -CAkey authority.key -keyout dns.test.key -out dns.test.pem {leaf}"),
        ] {
            openssl(place, &words.split_whitespace().collect::<Vec<_>>());
        }
        let many: Vec<String> = (1..=120).map(|last| format!("  local-data: \"many.test. 1 IN A 10.1.1.{last}\"\n")).collect();
        let many = many.concat();
        let text = format!(
            "server:\n  interface: {OTHER}@53\n  interface: {OTHER}@853\n  tls-port: 853\n  tls-service-key: dns.test.key\n  tls-service-pem: dns.test.pem\n  \
             access-control: 0.0.0.0/0 allow\n  chroot: \"\"\n  username: \"\"\n  directory: \"{0}\"\n  pidfile: \"\"\n  use-syslog: no\n  log-queries: yes\n  \
             do-not-query-localhost: no\n  local-zone: \"test.\" static\n  local-data: \"only.test. 1 IN A {SITE}\"\n  local-data: \"site.test. 1 IN A {SITE}\"\n  \
             local-data: \"alias.test. 1 IN CNAME only.test.\"\n  local-data: \"private.test. 1 IN A 10.0.0.5\"\n{many}remote-control:\n  control-enable: no\n",
            directory.display()
        );
        fs::write(directory.join("unbound.conf"), text).expect("written");
        let log = fs::File::create(directory.join("unbound.log")).expect("made");
        let mut command = place.lab.in_net(&["/usr/sbin/unbound", "-d", "-c", "unbound.conf"]);
        let child = command.current_dir(&directory).stderr(log).process_group(0).spawn().expect("unbound is installed");
        let unbound = Self { child };
        let said = || fs::read_to_string(directory.join("unbound.log")).unwrap_or_default();
        eventually("unbound serves", || said().contains("start of service"));
        unbound
    }
}

/// A fetch of each name with this `resolver:` in the configuration: what came, and the rest of what was said.
fn fetched(place: &Place, resolver: &str, names: &[&str]) -> (String, String) {
    let config = place.home.path("config.yaml");
    fs::write(&config, format!("resolver: {resolver}\n")).expect("written");
    let mut words = vec!["run".to_owned()];
    let mut script = String::new();
    for name in names {
        words.extend(["--allow".to_owned(), format!("{name}:80")]);
        script.extend([&format!("curl -sS -m 12 http://{name}/ 2>/dev/null || echo {name} failed; ")[..]]);
    }
    words.extend(["--", "sh", "-c", &script].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ended = cofferdam_tests::ended(place.lab.command(&place.home, &words).env("COFFERDAM_CONFIG_PATH", &config));
    (ended.out, format!("{}\n{}", ended.err, place.home.ok(&["policy", "log"])))
}

#[test]
pub fn plain_ones_are_asked_and_no_other() {
    let place = Place::new();
    let _unbound = Unbound::start(&place);
    let capture = place.lab.capture();
    let (out, said) = fetched(&place, &format!("{{servers: ['{OTHER}']}}"), &["only.test", "alias.test", "private.test", "other.test"]);
    assert_eq!(out, format!("{SITE} only.test /\n{SITE} alias.test /\nprivate.test failed\nother.test failed\n"), "{said}");
    assert!(
        said.contains("10.0.0.5 is in a private network") && said.contains("other.test cannot be resolved: there is no such name"),
        "{said}"
    );
    let seen: Vec<String> = capture.finish().into_iter().collect();
    assert_eq!(seen, [format!("tcp {SITE} 80"), format!("udp {OTHER} 53")]);
    assert!(place.lab.questions().is_empty(), "the host's own resolver was asked: {:?}", place.lab.questions());
}

/// 120 addresses fit in no datagram.
#[test]
fn a_long_answer_comes_over_tcp() {
    let place = Place::new();
    let _unbound = Unbound::start(&place);
    let capture = place.lab.capture();
    let (_, said) = fetched(&place, &format!("{{servers: ['{OTHER}:53']}}"), &["many.test"]);
    assert!(said.contains("10.1.1.") && said.contains("is in a private network"), "{said}");
    assert!(capture.finish().contains(&format!("tcp {OTHER} 53")), "{said}");
}

#[test]
pub fn over_tls_nothing_is_asked_in_the_open() {
    let place = Place::new();
    let _unbound = Unbound::start(&place);
    let roots = |name: &str| place.home.path("lab").join(format!("{name}.pem")).display().to_string();
    let capture = place.lab.capture();
    let trusted = format!("{{servers: ['{OTHER}'], tls: dns.test, ca: {}}}", roots("authority"));
    let (out, said) = fetched(&place, &trusted, &["only.test", "site.test"]);
    assert_eq!(out, format!("{SITE} only.test /\n{SITE} site.test /\n"), "{said}");
    for (name, ca) in [("wrong.test", "authority"), ("dns.test", "stranger")] {
        let settings = format!("{{servers: ['{OTHER}'], tls: {name}, ca: {}}}", roots(ca));
        let (out, said) = fetched(&place, &settings, &["only.test"]);
        assert!(out == "only.test failed\n" && said.contains("no certificate of"), "{name} by {ca}: {out} {said}");
    }
    // Who this host trusts: not the one that signed this.
    let (out, said) = fetched(&place, &format!("{{servers: ['{OTHER}'], tls: dns.test}}"), &["only.test"]);
    assert!(out == "only.test failed\n" && said.contains("only.test cannot be resolved"), "{out} {said}");
    let seen: Vec<String> = capture.finish().into_iter().collect();
    assert_eq!(seen, [format!("tcp {SITE} 80"), format!("tcp {OTHER} 853")]);
    assert!(place.lab.questions().is_empty(), "{:?}", place.lab.questions());
}

#[test]
fn one_that_is_not_there_is_not_replaced() {
    let place = Place::new();
    let (out, said) = fetched(&place, &format!("{{servers: ['{OTHER}:5353']}}"), &["site.test"]);
    assert!(out == "site.test failed\n" && said.contains("site.test cannot be resolved"), "{out} {said}");
    assert!(place.lab.questions().is_empty(), "{:?}", place.lab.questions());
}

#[test]
fn settings_that_are_wrong_are_named() {
    let place = Place::new();
    for (settings, why) in [
        ("{servers: []}", "0 name servers: 1 to 8 are wanted"),
        ("{servers: [dns.example]}", "\"dns.example\" is no address of a name server"),
        ("{servers: [9.9.9.9], tls: 'a b'}", "\"a b\" is no name that a certificate could have"),
        ("{servers: [9.9.9.9], tls: dns.test, ca: /nonexistent}", "/nonexistent: No such file"),
        ("{servers: [9.9.9.9], tls: dns.test, ca: /etc/hostname}", "no certificate can be read"),
        ("{servers: [9.9.9.9], tls: dns.test, ca: /etc/ssl/certs/ca-certificates.crt}", "32768 at most are read"),
        ("{server: [9.9.9.9]}", "server"),
    ] {
        let config = place.home.path("config.yaml");
        fs::write(&config, format!("resolver: {settings}\n")).expect("written");
        let mut command = place.lab.command(&place.home, &["run", "--allow", "site.test", "--", "true"]);
        let ended = cofferdam_tests::ended(command.env("COFFERDAM_CONFIG_PATH", &config));
        assert!(ended.code == 125 && ended.err.contains(why) && ended.err.lines().count() <= 3, "{settings}: {ended:?}");
    }
}
