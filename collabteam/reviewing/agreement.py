"""Agreement of two reviewers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Compute the agreement of two reviewers beyond chance (Cohen 1960).

    Args:
        pairs: The first and the second reviewer's label for each crop.

    Returns:
        At most 1, which is full agreement; 0 is chance. None without pairs, or if chance alone
        would give full agreement.

    Example:
        >>> cohen_kappa([("a", "a"), ("a", "b"), ("b", "b"), ("b", "b")])
        0.5
    """
    if not pairs:
        return None
    count = len(pairs)
    agreed = sum(first == second for first, second in pairs) / count
    firsts, seconds = (Counter(side) for side in zip(*pairs, strict=True))
    chance = sum(firsts[label] * seconds[label] for label in firsts) / count**2
    return None if chance == 1 else (agreed - chance) / (1 - chance)
