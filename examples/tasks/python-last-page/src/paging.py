"""Splits sequences into pages."""


def page_count(total, size):
    """Number of pages of `size` items that hold `total` items."""
    return total // size


def pages(items, size):
    """The pages, in order, as lists."""
    if size < 1:
        raise ValueError("size must be at least 1")
    return [items[i * size:(i + 1) * size] for i in range(page_count(len(items), size))]
