"""How far two sequences of token ids go together."""

from __future__ import annotations

from collections.abc import Sequence


def whole_prefix(held: Sequence[int], wanted: Sequence[int]) -> int:
    """Tokens of `held` when `wanted` begins with all of them, else none: what a model can use whose
    state cannot be taken back."""
    return len(held) if common_prefix(held, wanted) == len(held) else 0


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Leading items that both have in common. Halving: slices compare much faster than a loop."""
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low
