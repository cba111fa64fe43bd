"""What may leave the hospital: no cell of fewer than ten patients, and none that can be worked out by subtraction."""

from __future__ import annotations

import numpy as np
import pandas as pd

MIN_CELL = 10
SUPPRESSED = f"<{MIN_CELL}"


def suppressed_cells(counts: np.ndarray, *, has_column_totals: bool = True, has_row_totals: bool = True) -> np.ndarray:
    """Finds the cells of a table of patients that must not be shown.

    A cell of 1 to 9 is hidden. Where exactly one cell of a row or column with a known total is hidden, the smallest other
    cell above 0 is hidden too, until no cell can be worked out by subtraction.

    Args:
        counts: `[rows, columns]` patients.
        has_column_totals: the reader knows, or can add up, each column's total.
        has_row_totals: the same for rows.

    Returns:
        `[rows, columns] bool`.
    """
    hidden = (counts > 0) & (counts < MIN_CELL)
    changed = True
    while changed:
        changed = False
        lines = [(hidden[:, c], counts[:, c]) for c in range(counts.shape[1])] if has_column_totals else []
        lines += [(hidden[r], counts[r]) for r in range(counts.shape[0])] if has_row_totals else []
        for line, values in lines:  # views into `hidden`
            candidates = np.flatnonzero(~line & (values > 0))
            if line.sum() == 1 and len(candidates):
                line[candidates[np.argmin(values[candidates])]] = True
                changed = True
    return hidden


def suppress(counts: pd.DataFrame, *, has_column_totals: bool = True, has_row_totals: bool = True) -> pd.DataFrame:
    """Returns a table of patients as text, with small cells replaced by `"<10"` and their complements by `"hidden"`."""
    values = counts.to_numpy()
    hidden = suppressed_cells(values, has_column_totals=has_column_totals, has_row_totals=has_row_totals)
    text = np.array([[f"{v:,}" for v in row] for row in values], object)
    text[hidden] = "hidden"
    text[hidden & (values < MIN_CELL)] = SUPPRESSED
    return pd.DataFrame(text, index=counts.index, columns=counts.columns)
