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


import json
import random

DRIVER = """
import json, sys
sys.path.insert(0, "src")
from intervals import merge
for line in sys.stdin:
    try:
        print(json.dumps([list(pair) for pair in merge([tuple(pair) for pair in json.loads(line)])]))
    except ValueError:
        print('"ValueError"')
"""


def reference(pairs):
    merged = []
    for start, end in sorted(pairs):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(end, merged[-1][1])
        else:
            merged.append([start, end])
    return merged


cases = [[], [[3, 4], [1, 2]], [[1, 2], [2, 3]], [[1, 9], [2, 3]]]
generator = random.Random(7)
for _ in range(300):
    starts = [generator.randrange(60) for _ in range(generator.randrange(12))]
    cases.append([[start, start + generator.randrange(6)] for start in starts])
lines = "".join(json.dumps(case) + "\n" for case in [*cases, [[2, 1]]])
expect(["python3", "-I", "-c", DRIVER], lines, [*(json.dumps(reference(case)) for case in cases), '"ValueError"'])
