//! Patterns of paths, as Go's `filepath.Match` has them, with `**`; and `.dockerignore`.

/// Whether a name is what a pattern says: `*`, `?`, `[a-z]`, `[^a]`, and `\` before what is meant as it stands.
pub fn name_matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut of) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while of < name.len() {
        match one(&pattern, at, name[of]) {
            One::Star => {
                star = Some((at, of));
                at += 1;
            }
            One::Matches(next) => {
                at = next;
                of += 1;
            }
            One::Differs => match star {
                // What the star stands for is one longer.
                Some((star_at, star_of)) => {
                    star = Some((star_at, star_of + 1));
                    at = star_at + 1;
                    of = star_of + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

enum One {
    Star,
    Matches(usize),
    Differs,
}

fn one(pattern: &[char], at: usize, c: char) -> One {
    match pattern.get(at) {
        None => One::Differs,
        Some('*') => One::Star,
        Some('?') => One::Matches(at + 1),
        Some('\\') => {
            if pattern.get(at + 1) == Some(&c) {
                One::Matches(at + 2)
            } else {
                One::Differs
            }
        }
        Some('[') => class(pattern, at, c),
        Some(other) => {
            if *other == c {
                One::Matches(at + 1)
            } else {
                One::Differs
            }
        }
    }
}

fn class(pattern: &[char], at: usize, c: char) -> One {
    let Some(length) = pattern[at..].iter().position(|c| *c == ']').filter(|length| *length > 1) else {
        return if c == '[' { One::Matches(at + 1) } else { One::Differs };
    };
    let mut inside = &pattern[at + 1..at + length];
    let negated = matches!(inside.first(), Some('^' | '!'));
    if negated {
        inside = &inside[1..];
    }
    let mut found = false;
    while let Some((first, rest)) = inside.split_first() {
        if let ['-', last, after @ ..] = rest {
            found |= (*first..=*last).contains(&c);
            inside = after;
        } else {
            found |= *first == c;
            inside = rest;
        }
    }
    if found == negated { One::Differs } else { One::Matches(at + length + 1) }
}

/// The same for paths in parts; `**` stands for any number of parts.
pub fn path_matches(pattern: &[&str], path: &[&str]) -> bool {
    // Where the pattern can stand after each part: no pattern makes this slow.
    let mut places: Vec<bool> = vec![false; pattern.len() + 1];
    places[0] = true;
    skip_stars(pattern, &mut places);
    for part in path {
        let mut next = vec![false; pattern.len() + 1];
        for (at, _) in places.iter().enumerate().filter(|(_, here)| **here) {
            match pattern.get(at) {
                Some(&"**") => next[at] = true,
                Some(wanted) if name_matches(wanted, part) => next[at + 1] = true,
                _ => {}
            }
        }
        places = next;
        skip_stars(pattern, &mut places);
    }
    places[pattern.len()]
}

fn skip_stars(pattern: &[&str], places: &mut [bool]) {
    for at in 0..pattern.len() {
        if places[at] && pattern[at] == "**" {
            places[at + 1] = true;
        }
    }
}

/// What a build leaves out of its context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<(bool, Vec<String>)>,
}

impl Ignore {
    /// From the text of a `.dockerignore`.
    pub fn parse(text: &str) -> Self {
        let mut rules = Vec::new();
        for line in text.trim_start_matches('\u{feff}').lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (kept, pattern) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
            let mut parts = Vec::new();
            for part in pattern.split('/').filter(|part| !part.is_empty() && *part != ".") {
                if part == ".." {
                    parts.pop();
                } else {
                    parts.push(part.to_owned());
                }
            }
            if !parts.is_empty() {
                rules.push((kept, parts));
            }
        }
        Self { rules }
    }

    /// Whether a path is left out. The last rule that fits it, or a directory above it, decides.
    pub fn excludes(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut out = false;
        for (kept, pattern) in &self.rules {
            let pattern: Vec<&str> = pattern.iter().map(String::as_str).collect();
            if (1..=parts.len()).any(|length| path_matches(&pattern, &parts[..length])) {
                out = !kept;
            }
        }
        out
    }

    /// Whether something below a directory that is left out may be kept all the same.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|(kept, _)| *kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (pattern, name) in
            [("*", ""), ("*.py", "a.py"), ("a?c", "abc"), ("[a-c]x", "bx"), ("[^a]x", "bx"), ("a\\*b", "a*b"), ("*a*b*", "xaxbx")]
        {
            assert!(name_matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*.py", "a.pyc"), ("a?c", "ac"), ("[a-c]x", "dx"), ("[^a]x", "ax"), ("a\\*b", "axb"), ("", "a")] {
            assert!(!name_matches(pattern, name), "{pattern} {name}");
        }
        assert!(!name_matches(&"*a".repeat(200), &"a".repeat(150)), "and takes no time");
    }

    #[test]
    fn ignore_files_are_docker_s() {
        let ignore = Ignore::parse("# x\n.git\n**/*.pyc\nnode_modules/\n!node_modules/keep\n/build\ndocs/*.md\n*/temp*\n");
        for path in [".git", ".git/config", "a/b/c.pyc", "c.pyc", "node_modules/x", "build/out", "docs/a.md", "src/temporary"] {
            assert!(ignore.excludes(path), "{path}");
        }
        for path in ["src/.git", "node_modules/keep", "node_modules/keep/x", "src/build", "docs/a/b.md", "temp", "a/b/temp"] {
            assert!(!ignore.excludes(path), "{path}");
        }
    }
}
