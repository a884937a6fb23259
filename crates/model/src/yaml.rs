//! YAML files of ours: unknown keys are errors that show the place, the line and the nearest known key.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file that could not be read, with its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}:{line}:{column}: {message}{excerpt}")]
pub struct YamlError {
    /// The file.
    pub source_name: String,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// What is wrong.
    pub message: String,
    excerpt: String,
}

/// Reads a document; `source_name` stands in errors.
pub fn parse<T: DeserializeOwned>(source_name: &str, text: &str) -> Result<T, YamlError> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location();
        let (line, column) = place.map_or((1, 1), |place| (place.line(), place.column()));
        let message = shorten(&error.to_string());
        let message = match suggest(&message) {
            Some(near) => format!("{message}; did you mean \"{near}\"?"),
            None => begin(&message, LONGEST_MESSAGE),
        };
        let shown = begin(text.lines().nth(line as usize - 1).unwrap_or(""), LONGEST_EXCERPT);
        let excerpt = if shown.is_empty() { String::new() } else { format!("\n  {line} | {shown}") };
        YamlError { source_name: source_name.to_owned(), line, column, message, excerpt }
    })
}

/// What is shown of a text that a file may have made as long as it likes.
fn begin(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Writes a document.
pub fn write<T: Serialize>(value: &T) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(value)
}

/// Characters of what is told.
const LONGEST_MESSAGE: usize = 1000;
const LONGEST_EXCERPT: usize = 200;
/// Bytes of a word that something near is looked for.
const LONGEST_WORD: usize = 64;

/// The message without the place that the parser appends: it stands in front already.
fn shorten(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let end = first.find(" at line ").unwrap_or(first.len());
    first[..end].trim_start_matches("error: ").to_owned()
}

/// The known key that is nearest to the unknown one, from the parser's message
/// ("unknown field `x`, expected one of a, b").
fn suggest(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown ")?;
    // A file may call a field what it likes, backquotes and "expected" among it: then nothing is suggested.
    let (unknown, rest) = rest.split_once('`')?.1.split_once('`')?;
    let known = rest.strip_prefix(", expected ").filter(|_| unknown.len() <= LONGEST_WORD)?;
    let known = known.trim_start_matches("one of ").split(", ").map(|name| name.trim_matches('`'));
    let nearest = known.map(|known| (distance(unknown, known), known)).min()?;
    (nearest.0 <= 1 + unknown.len() / 3).then(|| nearest.1.to_owned())
}

/// Edit distance (Levenshtein) of two short words.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitution = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitution.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance() {
        for (a, b, expected) in [("", "", 0), ("a", "", 1), ("dificulty", "difficulty", 1), ("kitten", "sitting", 3)] {
            assert_eq!(distance(a, b), expected);
        }
    }

    /// The nearest of a million words to a word of a million letters is looked for for hours.
    #[test]
    fn a_fields_name_decides_nothing() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Known {
            _name: u32,
        }
        for text in [format!("{}: 1\n", "k".repeat(1 << 20)), format!("? a expected {}\n: 1\n", "b, expected ".repeat(1 << 17))] {
            let said = parse::<Known>("f", &text).expect_err("unknown").to_string();
            assert!(said.chars().count() < 2000, "{}", said.len());
        }
        let near = parse::<Known>("f", "_nam: 1\n").expect_err("unknown").to_string();
        assert!(near.contains("did you mean \"_name\""), "{near}");
    }

    #[test]
    fn duplicate_keys_and_bombs_are_refused() {
        assert!(parse::<std::collections::BTreeMap<String, u32>>("f", "a: 1\na: 2\n").is_err());
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
        assert!(parse::<serde_json::Value>("f", bomb).is_err());
    }
}
