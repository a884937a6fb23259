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
built = as_agent(["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-Isrc", "-o", "/tmp/judged", "-x", "c", "-", "src/ring.c"], source)
if built.returncode:
    raise SystemExit(built.stderr)
commands, expected, held, sent = [], [], "", 0


def write(text):
    global held
    fits = text[: 8 - len(held)]
    held += fits
    commands.append(f"w {text}")
    expected.append(str(len(fits)))


def read(count):
    global held
    commands.append(f"r {count}")
    expected.append(held[:count])
    held = held[count:]


write("abcdefgh")
write("x")
read(8)
for number in range(1000):
    text = "".join(chr(ord("a") + (sent + at) % 26) for at in range(number % 5 + 1))
    sent += len(text)
    write(text)
    read(number % 3 + 1)
expect(["/tmp/judged"], "\n".join(commands) + "\n", expected)
