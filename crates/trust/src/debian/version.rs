//! Versions of Debian packages and relations between packages (Debian policy 5.6.12 and 7.1).

use std::cmp::Ordering;

/// Compares two versions: epoch, upstream version, revision.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (Parts::of(a), Parts::of(b));
    a.epoch.cmp(&b.epoch).then_with(|| parts(a.upstream, b.upstream)).then_with(|| parts(a.revision, b.revision))
}

struct Parts<'a> {
    epoch: u64,
    upstream: &'a str,
    revision: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
            None => (0, text),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Self { epoch, upstream, revision }
    }
}

/// By turns what is no digit and what is: `~` before the end, letters before the rest, numbers by value.
fn parts(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (text_a, rest_a) = a.split_at(a.find(|c: char| c.is_ascii_digit()).unwrap_or(a.len()));
        let (text_b, rest_b) = b.split_at(b.find(|c: char| c.is_ascii_digit()).unwrap_or(b.len()));
        let words = weights(text_a, text_b);
        if words != Ordering::Equal {
            return words;
        }
        let (number_a, next_a) = rest_a.split_at(rest_a.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest_a.len()));
        let (number_b, next_b) = rest_b.split_at(rest_b.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest_b.len()));
        let (plain_a, plain_b) = (number_a.trim_start_matches('0'), number_b.trim_start_matches('0'));
        let numbers = plain_a.len().cmp(&plain_b.len()).then_with(|| plain_a.cmp(plain_b));
        if numbers != Ordering::Equal {
            return numbers;
        }
        (a, b) = (next_a, next_b);
    }
    Ordering::Equal
}

fn weights(a: &str, b: &str) -> Ordering {
    let weight = |c: Option<char>| match c {
        Some('~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => c as i32,
        Some(c) => c as i32 + 256,
    };
    let (mut a, mut b) = (a.chars(), b.chars());
    loop {
        let (x, y) = (a.next(), b.next());
        let order = weight(x).cmp(&weight(y));
        if order != Ordering::Equal || (x.is_none() && y.is_none()) {
            return order;
        }
    }
}

/// A package, perhaps of certain versions only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its name, or one that packages provide.
    pub name: String,
    /// `<<`, `<=`, `=`, `>=` or `>>`, and the version.
    pub bound: Option<(String, String)>,
}

impl Relation {
    /// Whether this version will do.
    pub fn admits(&self, version: &str) -> bool {
        let Some((operator, wanted)) = &self.bound else { return true };
        let order = compare(version, wanted);
        match operator.as_str() {
            "<<" => order == Ordering::Less,
            "<=" | "<" => order != Ordering::Greater,
            "=" => order == Ordering::Equal,
            ">>" => order == Ordering::Greater,
            _ => order != Ordering::Less,
        }
    }
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        self.bound.as_ref().map_or(Ok(()), |(operator, version)| write!(f, " ({operator} {version})"))
    }
}

/// Reads `a (>= 1) | b:any, c`: groups that all must be met, each by one of its members.
pub fn relations(text: &str) -> Vec<Vec<Relation>> {
    let groups = text.split(',').map(str::trim).filter(|group| !group.is_empty());
    groups.map(|group| group.split('|').filter_map(relation).collect()).collect()
}

fn relation(text: &str) -> Option<Relation> {
    let (front, bound) = match text.split_once('(') {
        Some((front, rest)) => {
            let inner = rest.split(')').next()?.trim();
            let end = inner.find(|c: char| !"<>=".contains(c))?;
            (front, Some((inner[..end].to_owned(), inner[end..].trim().to_owned())))
        }
        None => (text, None),
    };
    let name = front.split_whitespace().next()?;
    let name = name.split(':').next().unwrap_or(name);
    Some(Relation { name: name.to_owned(), bound })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs in rising order, as `dpkg --compare-versions` has them.
    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let rising = [
            "0~~", "0~", "0", "0.1~rc1", "0.1", "0.1a", "0.1a1", "0.1+b1", "0.1-0~1", "0.1-1", "0.1-1+b1", "0.1-1.1", "0.1-2", "0.1-10",
            "0.9", "0.010", "1:0~1", "1:0",
        ];
        for (at, low) in rising.iter().enumerate() {
            assert_eq!(compare(low, low), Ordering::Equal, "{low}");
            for high in &rising[at + 1..] {
                // 0.1 with an empty revision is 0.1-0~1's elder, by the rule that the end comes after a tilde only.
                let theirs = dpkg(low, high);
                assert_eq!(compare(low, high), theirs, "{low} {high}");
                assert_eq!(compare(high, low), theirs.reverse(), "{high} {low}");
            }
        }
    }

    fn dpkg(a: &str, b: &str) -> Ordering {
        let is = |operator: &str| {
            let status = std::process::Command::new("dpkg").args(["--compare-versions", a, operator, b]).status();
            status.is_ok_and(|status| status.success())
        };
        match (is("lt"), is("eq"), is("gt")) {
            (true, false, false) => Ordering::Less,
            (false, true, false) => Ordering::Equal,
            (false, false, true) => Ordering::Greater,
            other => panic!("dpkg --compare-versions {a} {b}: {other:?}"),
        }
    }

    #[test]
    fn relations_are_read() {
        let groups = relations("libc6 (>= 2.36), perl:any | awk (<< 1:2~), debconf (>= 0.5) | debconf-2.0 , x [amd64]");
        let shown: Vec<Vec<String>> = groups.iter().map(|group| group.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(shown, [vec!["libc6 (>= 2.36)"], vec!["perl", "awk (<< 1:2~)"], vec!["debconf (>= 0.5)", "debconf-2.0"], vec!["x"]]);
        assert!(groups[0][0].admits("2.36-9") && !groups[0][0].admits("2.35"));
    }
}
