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
import json, sys
sys.path.insert(0, "src")
from paging import page_count, pages
for line in sys.stdin:
    name, *arguments = json.loads(line)
    try:
        print(json.dumps({"pages": pages, "page_count": page_count}[name](*arguments)))
    except ValueError:
        print('"ValueError"')
"""
CASES = [
    ('["pages", [1, 2, 3, 4], 2]', "[[1, 2], [3, 4]]"),
    ('["pages", [1, 2, 3], 2]', "[[1, 2], [3]]"),
    ('["page_count", 101, 10]', "11"),
    ('["page_count", 100, 10]', "10"),
    ('["pages", [], 3]', "[]"),
    ('["page_count", 0, 3]', "0"),
    ('["pages", [1], 0]', '"ValueError"'),
]
lines = "".join(f"{line}\n" for line, _ in CASES)
expect(["python3", "-I", "-c", DRIVER], lines, [expected for _, expected in CASES])
