//! Physical lines to instructions: comments, continuations, here-documents.

use super::instruction::Heredoc;

/// One instruction's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it begins, from 1.
    pub number: usize,
    /// Its first word, in upper case.
    pub keyword: String,
    /// The rest, continued lines joined.
    pub rest: String,
    /// Its here-documents, in order.
    pub heredocs: Vec<Heredoc>,
    /// The escape character.
    pub escape: char,
}

impl Line {
    /// As people read it.
    pub fn shown(&self) -> String {
        format!("{} {}", self.keyword, self.rest).trim().to_owned()
    }
}

/// Every instruction.
pub fn logical(text: &str) -> Result<Vec<Line>, (usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let physical: Vec<&str> = text.lines().collect();
    let escape = escape_directive(&physical);
    let mut lines = Vec::new();
    let mut at = 0;
    while at < physical.len() {
        if is_comment(physical[at]) || physical[at].trim().is_empty() {
            at += 1;
            continue;
        }
        let number = at + 1;
        let (joined, next) = join(&physical, at, escape);
        at = next;
        let joined = joined.trim_start();
        let (keyword, rest) = joined.split_once(char::is_whitespace).unwrap_or((joined, ""));
        let keyword = keyword.to_ascii_uppercase();
        let mut line = Line { number, keyword, rest: rest.trim().to_owned(), heredocs: Vec::new(), escape };
        if ["RUN", "COPY", "ADD"].contains(&line.keyword.as_str()) {
            at = heredocs(&physical, at, &mut line)?;
        }
        lines.push(line);
    }
    Ok(lines)
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// `# escape=` among the directives that begin a file.
fn escape_directive(lines: &[&str]) -> char {
    for line in lines {
        let Some(comment) = line.trim_start().strip_prefix('#') else { break };
        let Some((key, value)) = comment.split_once('=') else { break };
        if key.trim().eq_ignore_ascii_case("escape") && value.trim() == "`" {
            return '`';
        }
    }
    '\\'
}

/// A line with those that continue it. Comments and empty lines between them are left out.
fn join(lines: &[&str], first: usize, escape: char) -> (String, usize) {
    let mut joined = String::new();
    let mut at = first;
    while at < lines.len() {
        let line = lines[at];
        at += 1;
        if at > first + 1 && (is_comment(line) || line.trim().is_empty()) {
            continue;
        }
        if let Some(continued) = line.trim_end().strip_suffix(escape) {
            joined.push_str(continued);
        } else {
            joined.push_str(line);
            break;
        }
    }
    (joined, at)
}

/// Reads the here-documents that a line announces, and gives where the next instruction may begin.
fn heredocs(lines: &[&str], mut at: usize, line: &mut Line) -> Result<usize, (usize, String)> {
    for (name, expand, strip) in announced(&line.rest) {
        let mut body = String::new();
        loop {
            let Some(text) = lines.get(at) else {
                return Err((line.number, format!("the here-document {name} does not end")));
            };
            at += 1;
            let text = if strip { text.trim_start_matches('\t') } else { text };
            if text == name {
                break;
            }
            body.push_str(text);
            body.push('\n');
        }
        line.heredocs.push(Heredoc { name, body, expand });
    }
    Ok(at)
}

/// `<<NAME`, `<<-NAME`, `<<"NAME"` outside quotes: name, whether its text is expanded, whether tabs are stripped.
fn announced(rest: &str) -> Vec<(String, bool, bool)> {
    let mut found = Vec::new();
    let bytes = rest.as_bytes();
    let (mut at, mut quote) = (0, None);
    while at < bytes.len() {
        let byte = bytes[at];
        match quote {
            Some(open) if byte == open => quote = None,
            None if byte == b'\'' || byte == b'"' => quote = Some(byte),
            None if bytes[at..].starts_with(b"<<") && bytes.get(at + 2) != Some(&b'<') && (at == 0 || bytes[at - 1] != b'<') => {
                let word: String = rest[at + 2..].chars().take_while(|c| !c.is_whitespace() && !"|&;<>()".contains(*c)).collect();
                let (strip, word) = word.strip_prefix('-').map_or((false, word.as_str()), |word| (true, word));
                let plain = word.trim_matches(['"', '\'']);
                if !plain.is_empty() && plain.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '.') {
                    found.push((plain.to_owned(), plain == word, strip));
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}
