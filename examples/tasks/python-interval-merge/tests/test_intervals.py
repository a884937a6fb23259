import random
import unittest

from intervals import merge


def points(pairs):
    return {point for start, end in pairs for point in range(2 * start, 2 * end + 1)}


class Merge(unittest.TestCase):
    def test_examples(self):
        self.assertEqual(list(map(tuple, merge([]))), [])
        self.assertEqual(list(map(tuple, merge([(3, 4), (1, 2)]))), [(1, 2), (3, 4)])
        self.assertEqual(list(map(tuple, merge([(1, 2), (2, 3)]))), [(1, 3)])
        self.assertEqual(list(map(tuple, merge([(1, 9), (2, 3)]))), [(1, 9)])

    def test_bad_pair(self):
        with self.assertRaises(ValueError):
            merge([(2, 1)])

    def test_random(self):
        generator = random.Random(7)
        for _ in range(300):
            starts = [generator.randrange(60) for _ in range(generator.randrange(12))]
            pairs = [(start, start + generator.randrange(6)) for start in starts]
            merged = list(map(tuple, merge(list(pairs))))
            self.assertEqual(points(merged), points(pairs))
            self.assertEqual(merged, sorted(merged))
            self.assertTrue(all(a[1] < b[0] for a, b in zip(merged, merged[1:])))


if __name__ == "__main__":
    unittest.main()
