"""What may leave the hospital: no cell of fewer than ten patients, and none that can be worked out by subtraction."""

from __future__ import annotations

import numpy as np
import pandas as pd

MIN_CELL = 10
SUPPRESSED = f"<{MIN_CELL}"


def suppressed_cells(counts: np.ndarray, *, has_column_totals: bool = True, has_row_totals: bool = True) -> np.ndarray:
    """Finds the cells of a table of patients that must not be shown.

    A cell of 1 to 9 is hidden. Where hidden cells can be worked out from the cells shown and the totals (one alone in its
    row or column is only the simplest case), the smallest other cell of a row or column of theirs is hidden too, one at a
    time, until none can. A cell above 0 is preferred; where a line holds nothing else, a 0 is hidden.

    Args:
        counts: `[rows, columns]` patients.
        has_column_totals: the reader knows, or can add up, each column's total.
        has_row_totals: the same for rows.

    Returns:
        `[rows, columns] bool`. A small cell that is the only one of its line and has a known total cannot be protected.
    """
    hidden = (counts > 0) & (counts < MIN_CELL)
    while (known := recoverable_cells(hidden, has_column_totals=has_column_totals, has_row_totals=has_row_totals)).any():
        in_line = np.zeros_like(hidden)
        if has_column_totals:
            in_line |= known.any(axis=0, keepdims=True)
        if has_row_totals:
            in_line |= known.any(axis=1, keepdims=True)
        candidates = np.argwhere(in_line & ~hidden)
        if len(candidates) == 0:
            break
        # Zeros last: hiding one says "under ten" of an empty cell, which protects as well and tells less of the truth.
        sizes = counts[tuple(candidates.T)]
        first = np.lexsort((sizes, sizes == 0))[0]
        hidden[tuple(candidates[first])] = True
    return hidden


def recoverable_cells(hidden: np.ndarray, *, has_column_totals: bool = True, has_row_totals: bool = True) -> np.ndarray:
    """Returns `[rows, columns] bool`: hidden cells whose value follows by addition and subtraction from what is shown.

    The known totals are linear equations in the hidden cells; a cell is determined when no solution of the homogeneous
    equations moves it. (Bounds, such as that no count is negative, are not used.)
    """
    at = np.argwhere(hidden)
    lines = []
    if has_column_totals:
        lines += [at[:, 1] == c for c in range(hidden.shape[1])]
    if has_row_totals:
        lines += [at[:, 0] == r for r in range(hidden.shape[0])]
    found = np.zeros_like(hidden)
    if len(at) == 0 or not lines:
        return found
    _, singular, directions = np.linalg.svd(np.array(lines, float))
    rank = int((singular > 1e-9).sum())
    found[tuple(at.T)] = np.abs(directions[rank:]).max(axis=0, initial=0) < 1e-9
    return found


def suppress(counts: pd.DataFrame, *, has_column_totals: bool = True, has_row_totals: bool = True) -> pd.DataFrame:
    """Returns a table of patients as text, with small cells replaced by `"<10"` and their complements by `"hidden"`."""
    values = counts.to_numpy()
    hidden = suppressed_cells(values, has_column_totals=has_column_totals, has_row_totals=has_row_totals)
    text = np.array([[f"{v:,}" for v in row] for row in values], object)
    text[hidden] = "hidden"
    text[hidden & (values < MIN_CELL)] = SUPPRESSED
    return pd.DataFrame(text, index=counts.index, columns=counts.columns)
