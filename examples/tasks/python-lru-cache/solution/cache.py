import sys


def main(most):
    values = {}
    for line in sys.stdin:
        words = line.split()
        if words[0] == "put":
            values.pop(words[1], None)
            if len(values) == most:
                del values[next(iter(values))]
            values[words[1]] = words[2]
        elif words[0] == "get":
            if words[1] in values:
                values[words[1]] = values.pop(words[1])
            print(values.get(words[1], "-"))


main(int(sys.argv[1]))
