use std::io::BufRead;

const DEEPEST: usize = 2000;

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn sum(&mut self) -> Option<i64> {
        let mut total = self.product()?;
        while let Some(operator @ (b'+' | b'-')) = self.peek() {
            self.at += 1;
            let next = self.product()?;
            total = if operator == b'+' { total.checked_add(next)? } else { total.checked_sub(next)? };
        }
        Some(total)
    }

    fn product(&mut self) -> Option<i64> {
        let mut total = self.factor()?;
        while let Some(operator @ (b'*' | b'/')) = self.peek() {
            self.at += 1;
            let next = self.factor()?;
            total = if operator == b'*' { total.checked_mul(next)? } else { total.checked_div(next)? };
        }
        Some(total)
    }

    fn factor(&mut self) -> Option<i64> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let value = match self.peek()? {
            b'-' => {
                self.at += 1;
                self.factor()?.checked_neg()
            }
            b'(' => {
                self.at += 1;
                let inner = self.sum()?;
                (self.peek() == Some(b')')).then(|| {
                    self.at += 1;
                    inner
                })
            }
            _ => {
                let from = self.at;
                while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
                    self.at += 1;
                }
                std::str::from_utf8(&self.text[from..self.at]).ok()?.parse().ok()
            }
        };
        self.depth -= 1;
        value
    }
}

fn value(text: &str) -> Option<i64> {
    let mut parser = Parser { text: text.as_bytes(), at: 0, depth: 0 };
    let total = parser.sum()?;
    parser.peek().is_none().then_some(total)
}

fn main() {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match value(&line) {
            Some(value) => println!("{value}"),
            None => println!("error"),
        }
    }
}
