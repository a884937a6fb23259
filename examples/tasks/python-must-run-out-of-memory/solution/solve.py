import sys

sys.path.insert(0, "src")
from make import numbers

with open("output/largest", "w") as out:
    print(max(numbers()), file=out)
