import sys


def main(most):
    values = {}
    for line in sys.stdin:
        words = line.split()
        if words[0] == "put":
            if words[1] not in values and len(values) == most:
                del values[next(iter(values))]
            values[words[1]] = words[2]
        elif words[0] == "get":
            print(values.get(words[1], "-"))


main(int(sys.argv[1]))
