"""The numbers, one after the other: a million of them, the same in every run."""


def numbers():
    value = 12345
    for _ in range(1_000_000):
        value = (value * 1103515245 + 12345) % (1 << 31)
        yield value
