"""Runs the candidate as a program of its own, as another user, and compares what it prints. The candidate neither sees this
directory nor prints a verdict."""

import os
import subprocess

os.chmod("tests", 0o700)


def as_agent(command, text=""):
    def drop():
        os.setgroups([])
        os.setgid(10001)
        os.setuid(10001)

    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=20, preexec_fn=drop)
    except (subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        raise SystemExit(f"{command[0]}: {error}")


def expect(command, text, expected):
    ended = as_agent(command, text)
    if ended.returncode or ended.stdout.split("\n")[:-1] != expected:
        raise SystemExit(f"{command} of {text[:200]!r}: expected {expected[:5]}, got {ended.returncode} {ended.stdout[:200]!r} {ended.stderr[-300:]}")


DRIVER = """
#[path = "/workspace/src/roman.rs"]
mod roman;

fn main() {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.parse::<u32>() {
            Ok(number) => println!("{}", roman::to_roman(number).unwrap_or_default()),
            Err(_) => println!("{}", roman::from_roman(&line).map_or(String::new(), |number| number.to_string())),
        }
    }
}
"""
built = as_agent(["rustc", "--edition", "2021", "-A", "warnings", "-o", "/tmp/judged", "-"], DRIVER)
if built.returncode:
    raise SystemExit(built.stderr)


def roman(number):
    text = ""
    for value, letters in zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1), "M CM D CD C XC L XL X IX V IV I".split()
    ):
        text += letters * (number // value)
        number %= value
    return text


numbers = list(range(1, 4000))
nonsense = ["", "IIII", "VX", "IC", "MMMM", "ABC", "iv", "VV", "IXI", "XCX"]
lines = [*map(str, numbers), *map(roman, numbers), "0", "4000", *nonsense]
expect(["/tmp/judged"], "\n".join(lines) + "\n", [*map(roman, numbers), *map(str, numbers), "", "", *("" for _ in nonsense)])
