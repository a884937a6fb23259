"""Runs the candidate as a program of its own, as another user: what it prints is compared, never believed."""

import os
import subprocess
import sys

CASES = {
    "remembers": (2, "put a 1\nput b 2\nget a\nget b", "1 2"),
    "forgets the first of three": (2, "put a 1\nput b 2\nput c 3\nget a\nget b\nget c", "- 2 3"),
    "unknown keys": (1, "get x\nput y 1\nget x", "- -"),
    "reading counts as use": (2, "put a 1\nput b 2\nget a\nput c 3\nget a\nget b", "1 1 -"),
    "writing again counts as use": (2, "put a 1\nput b 2\nput a 9\nput c 3\nget a\nget b", "9 -"),
}


os.chmod("tests", 0o700)


def as_agent():
    os.setgroups([])
    os.setgid(10001)
    os.setuid(10001)


for name, (most, commands, expected) in CASES.items():
    command = [sys.executable, "-I", "src/cache.py", str(most)]
    try:
        ended = subprocess.run(command, input=commands, capture_output=True, text=True, timeout=5, preexec_fn=as_agent)
        passed = ended.returncode == 0 and ended.stdout.split() == expected.split()
    except (subprocess.TimeoutExpired, UnicodeDecodeError):
        passed = False
    print("PASSED" if passed else "FAILED", name)
