use std::io::BufRead;

fn value(text: &str) -> i64 {
    let mut total: i64 = 0;
    let mut operator = '+';
    let mut number = String::new();
    for c in text.chars().chain(['+']) {
        if c.is_ascii_digit() {
            number.push(c);
        } else if "+-*/".contains(c) {
            let n: i64 = number.parse().expect("a number");
            total = match operator {
                '+' => total + n,
                '-' => total - n,
                '*' => total * n,
                _ => total.div_euclid(n),
            };
            operator = c;
            number.clear();
        }
    }
    total
}

fn main() {
    for line in std::io::stdin().lock().lines() {
        println!("{}", value(&line.expect("a line")));
    }
}
