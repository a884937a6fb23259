//! `decide` against a second implementation that is as slow and plain as can be: no index, no shared code but the parsers.

use cofferdam_policy::egress::{Allow, Deny, HostName, Policy, Presets, Source};
use std::net::{IpAddr, Ipv4Addr};

/// A small generator: the same cases in every run, other ones for every seed (splitmix64, public domain).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

const LABELS: &[&str] = &["a", "b", "ab", "c"];
const PORTS: &[u16] = &[443, 80, 22];

fn name(random: &mut Random) -> String {
    let labels: Vec<&str> = (0..=random.below(3)).map(|_| *random.pick(LABELS)).collect();
    format!("{}.x", labels.join("."))
}

fn address(random: &mut Random) -> Ipv4Addr {
    let first = *random.pick(&[1u8, 2, 10, 127]);
    Ipv4Addr::new(first, random.below(2) as u8, 0, random.below(4) as u8)
}

fn entry(random: &mut Random) -> String {
    match random.below(4) {
        1 => format!("*.{}", name(random)),
        2 => {
            let prefix = *random.pick(&[16u32, 30, 32]);
            let bits = address(random).to_bits() >> (32 - prefix) << (32 - prefix);
            format!("{}/{prefix}", Ipv4Addr::from_bits(bits))
        }
        _ => name(random),
    }
}

/// Whether a written entry is about a name or an address.
fn covers(entry: &str, asked: &str) -> bool {
    if let Some(parent) = entry.strip_prefix("*.") {
        let (asked, parent): (Vec<&str>, Vec<&str>) = (asked.split('.').collect(), parent.split('.').collect());
        return asked.len() > parent.len() && asked[asked.len() - parent.len()..] == parent[..];
    }
    if let Some((base, prefix)) = entry.split_once('/') {
        let (Ok(base), Ok(asked), Ok(prefix)) = (base.parse::<Ipv4Addr>(), asked.parse::<Ipv4Addr>(), prefix.parse::<usize>()) else {
            return false;
        };
        let bits = |address: Ipv4Addr| format!("{:032b}", address.to_bits());
        return bits(base)[..prefix] == bits(asked)[..prefix];
    }
    entry == asked
}

fn public(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 10 | 127)
}

struct Written {
    allow: Vec<(String, u16)>,
    deny: Vec<(String, Option<u16>)>,
    open: bool,
}

impl Written {
    fn new(random: &mut Random) -> Self {
        let open = random.below(5) == 0;
        let some = random.below(5);
        let allow = if open { Vec::new() } else { (0..=some).map(|_| (entry(random), *random.pick(PORTS))).collect() };
        let some = random.below(4);
        let deny = (0..some).map(|_| (entry(random), [None, Some(*random.pick(PORTS))][random.below(2)])).collect();
        Self { allow, deny, open }
    }

    fn compile(&self) -> Option<Policy> {
        let allow = self.allow.iter().map(|(entry, port)| format!("{entry}:{port}").parse::<Allow>().expect("an entry")).collect();
        let deny = self.deny.iter().map(|(entry, port)| {
            let text = port.map_or_else(|| entry.clone(), |port| format!("{entry}:{port}"));
            text.parse::<Deny>().expect("an entry")
        });
        let level = if self.open { "full_web" } else { "limited_web" }.parse().expect("a level");
        let source = Source { level, allow, deny: deny.collect(), rules: Vec::new() };
        source.compile(&Presets::with_packages(Vec::new())).ok().map(|(policy, _)| policy)
    }

    fn allows(&self, asked: &str, port: u16, is_public: bool) -> bool {
        let denied = self.deny.iter().any(|(entry, at)| covers(entry, asked) && at.is_none_or(|at| at == port));
        let listed = self.allow.iter().any(|(entry, at)| covers(entry, asked) && *at == port);
        !denied && (listed || self.open) && is_public
    }
}

fn agree(seed: u64, policies: u32) -> u32 {
    const QUESTIONS: u32 = 20;
    let mut random = Random(seed);
    let mut asked = 0;
    for _ in 0..policies {
        let written = Written::new(&mut random);
        // Contradictions and private blocks are refused when a policy is compiled.
        let Some(policy) = written.compile() else { continue };
        for _ in 0..QUESTIONS {
            let port = *random.pick(PORTS);
            let text = name(&mut random);
            let host: HostName = text.parse().expect("a name");
            assert_eq!(
                policy.decide_name(&host, port).is_ok(),
                written.allows(&text, port, true),
                "seed {seed}: {text}:{port} under {policy:?}"
            );
            let place = address(&mut random);
            let expected = written.allows(&place.to_string(), port, public(place));
            let decided = policy.decide_address(IpAddr::V4(place), port).is_ok();
            assert_eq!(decided, expected, "seed {seed}: {place}:{port} under {policy:?}");
            asked += 2;
        }
    }
    asked
}

/// A hundred thousand questions; as many as `COFFERDAM_QUESTIONS` says (ten million before a release).
#[test]
fn decisions_agree_with_the_reference() {
    let wanted: u64 = std::env::var("COFFERDAM_QUESTIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let mut asked = 0;
    for seed in 0.. {
        asked += u64::from(agree(seed, 300));
        if asked >= wanted {
            break;
        }
    }
}
