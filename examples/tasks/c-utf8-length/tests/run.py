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


with open("tests/driver.c") as driver:
    source = driver.read()
built = as_agent(["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-Isrc", "-o", "/tmp/judged", "-x", "c", "-", "src/utf8.c"], source)
if built.returncode:
    raise SystemExit(built.stderr)
CASES = {
    "": 0,
    "616263": 3,
    "c3a4": 1,
    "e282ac21": 2,
    "f09f9880": 1,
    "f48fbfbf": 1,
    "f4908080": -1,
    "c080": -1,
    "e08080": -1,
    "f0808080": -1,
    "eda080": -1,
    "80": -1,
    "e282": -1,
    "ff": -1,
    "61c328": -1,
}
expect(["/tmp/judged"], "".join(f"{text}\n" for text in CASES), [str(length) for length in CASES.values()])
