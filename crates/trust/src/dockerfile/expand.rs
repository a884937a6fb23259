//! Variables and quotes.

use std::collections::BTreeMap;

/// What names stand for.
pub type Variables = BTreeMap<String, String>;

/// Replaces `$NAME`, `${NAME}`, `${NAME:-word}`, `${NAME:+word}`, `${NAME-word}`, `${NAME+word}`, `${NAME:?word}`; an escaped dollar
/// stays one. Quotes are taken away, as a shell would; what stands in single quotes is not replaced.
pub fn expand(text: &str, variables: &Variables, escape: char) -> Result<String, String> {
    Ok(split(text, variables, escape, false)?.concat())
}

/// The same, as words.
pub fn words(text: &str, variables: &Variables, escape: char) -> Result<Vec<String>, String> {
    split(text, variables, escape, true)
}

fn split(text: &str, variables: &Variables, escape: char, at_spaces: bool) -> Result<Vec<String>, String> {
    let mut reader = Reader { rest: text.chars().collect::<Vec<_>>().into_iter().peekable(), variables, escape, depth: 0 };
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    while let Some(next) = reader.rest.next() {
        match (next, quote) {
            ('\'' | '"', None) => {
                quote = Some(next);
                word.get_or_insert_default();
            }
            (closing, Some(open)) if closing == open => quote = None,
            ('$', None | Some('"')) => {
                let value = reader.variable()?;
                word.get_or_insert_default().push_str(&value);
            }
            (c, None | Some('"')) if c == escape => {
                let escaped = reader.rest.next();
                let word = word.get_or_insert_default();
                match escaped {
                    Some(c) if quote.is_none() || c == '"' || c == '$' || c == escape => word.push(c),
                    Some(c) => word.extend([escape, c]),
                    None => word.push(escape),
                }
            }
            (c, None) if at_spaces && c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(format!("a quote {open} is not closed"));
    }
    words.extend(word);
    Ok(words)
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::vec::IntoIter<char>>,
    variables: &'a Variables,
    escape: char,
    depth: usize,
}

impl Reader<'_> {
    /// After the dollar.
    fn variable(&mut self) -> Result<String, String> {
        const DEEPEST: usize = 20;
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(if name.is_empty() { "$".into() } else { self.value(&name).unwrap_or_default() });
        }
        let name = self.name();
        if name.is_empty() {
            return Err("${ is not followed by a name".into());
        }
        let mut operator = String::new();
        while let Some(c) = self.rest.next_if(|c| operator.len() < 2 && ":-+?#%/".contains(*c)) {
            operator.push(c);
        }
        let mut word = String::new();
        let mut open = 1;
        loop {
            match self.rest.next() {
                None => return Err(format!("${{{name} is not closed")),
                Some('}') if open == 1 => break,
                Some(c) => {
                    open += usize::from(c == '{');
                    open -= usize::from(c == '}');
                    word.push(c);
                }
            }
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("variables are nested too deeply".into());
        }
        let value = self.value(&name);
        let there = if operator.starts_with(':') { value.as_ref().is_some_and(|value| !value.is_empty()) } else { value.is_some() };
        let (variables, escape) = (self.variables, self.escape);
        let expanded = || split(&word, variables, escape, false).map(|words| words.concat());
        let value = value.unwrap_or_default();
        match operator.as_str() {
            "" => Ok(value),
            ":-" | "-" => {
                if there {
                    Ok(value)
                } else {
                    expanded()
                }
            }
            ":+" | "+" => {
                if there {
                    expanded()
                } else {
                    Ok(String::new())
                }
            }
            ":?" | "?" if there => Ok(value),
            ":?" | "?" => Err(format!("{name}: {}", expanded()?)),
            _ => Err(format!("${{{name}{operator}…}} is not supported: only :- - :+ + :? and ? are")),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        name
    }

    fn value(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}
