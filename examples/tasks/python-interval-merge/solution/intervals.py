"""Merges intervals."""


def merge(intervals):
    """The fewest pairs that cover the same points, sorted."""
    merged = []
    for start, end in sorted(intervals):
        if start > end:
            raise ValueError(f"start {start} is above end {end}")
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
