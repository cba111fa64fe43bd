"""How even are group sizes? BiasCXR verifies a balanced set by the Gini coefficient and the entropy of its groups."""

from __future__ import annotations

import numpy as np


def gini_coefficient(sizes: np.ndarray) -> float:
    """Gini coefficient of group sizes: 0 when all are equal, (k - 1) / k when one group holds everything.

    `sum_ij |x_i - x_j| / (2 k^2 mean(x))`.

    Args:
        sizes: `[k]`, at least 0. NaN when empty or all zero.
    """
    sizes = np.asarray(sizes, np.float64)
    if sizes.sum() == 0:
        return float("nan")
    return float(np.abs(sizes[:, None] - sizes[None, :]).sum() / (2 * len(sizes) ** 2 * sizes.mean()))


def normalized_entropy(sizes: np.ndarray) -> float:
    """Shannon entropy of group shares divided by log k: 1 when all are equal, 0 when one group holds everything.

    Args:
        sizes: `[k]`, at least 0. NaN when there are fewer than two groups or all are empty.
    """
    sizes = np.asarray(sizes, np.float64)
    if len(sizes) < 2 or sizes.sum() == 0:
        return float("nan")
    shares = sizes[sizes > 0] / sizes.sum()
    return float(-(shares * np.log(shares)).sum() / np.log(len(sizes)))


def effective_n(weights: np.ndarray) -> float:
    """Kish's effective sample size `(sum w)^2 / sum w^2`: copies of a row add weight, not information.

    Args:
        weights: `[n]`, for instance how often each row is used; rows of weight 0 do not count.

    Reference: Kish, Survey Sampling, 1965.
    """
    weights = np.asarray(weights, np.float64)
    squared = (weights**2).sum()
    return float(weights.sum() ** 2 / squared) if squared else 0.0
