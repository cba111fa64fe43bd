"""Age groups: 0-20, 20-40, ..., 80+."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from biascxr.containers import UNKNOWN


def age_group_names(edges: tuple[float, ...]) -> list[str]:
    """Returns the names of the groups with these lower edges, in years: `("0-20", ..., "80+")`."""
    texts = [f"{edge:g}" for edge in edges]
    return [f"{low}-{high}" for low, high in pairwise(texts)] + [f"{texts[-1]}+"]


def cut_ages(ages: pd.Series, edges: tuple[float, ...]) -> pd.Series:
    """Puts ages into groups `[low, high)`.

    Args:
        ages: `[n] float`, years; NaN is unknown.
        edges: lower edges; an age below the first one is unknown.
    """
    index = np.searchsorted(edges, ages.fillna(-1.0), side="right") - 1
    names = np.array([*age_group_names(edges), UNKNOWN], object)
    return pd.Series(names[index], index=ages.index)  # index -1 is the last name: unknown
