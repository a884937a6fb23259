import unittest

from paging import page_count, pages


class Paging(unittest.TestCase):
    def test_full_pages(self):
        self.assertEqual(pages([1, 2, 3, 4], 2), [[1, 2], [3, 4]])

    def test_last_page(self):
        self.assertEqual(pages([1, 2, 3], 2), [[1, 2], [3]])
        self.assertEqual(page_count(101, 10), 11)

    def test_nothing(self):
        self.assertEqual(pages([], 3), [])
        self.assertEqual(page_count(0, 3), 0)

    def test_size(self):
        with self.assertRaises(ValueError):
            pages([1], 0)


if __name__ == "__main__":
    unittest.main()
