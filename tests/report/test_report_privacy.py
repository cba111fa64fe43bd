"""No cell of fewer than ten patients is shown, and none can be worked out by subtraction."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from biascxr.report.demographics import demographic_rows, label_rates, patients_by_group, with_totals
from biascxr.report.privacy import MIN_CELL, suppress, suppressed_cells

counts_of_patients = arrays.arrays(
    np.int64,
    st.tuples(st.integers(2, 6), st.integers(2, 5)),
    elements=st.one_of(st.integers(0, 15), st.integers(0, 300)),
)


def solutions_move(hidden: np.ndarray, *, rows: bool, columns: bool) -> np.ndarray:
    """Whether the totals leave each hidden cell open, found by an independent route: its least-squares leverage.

    A hidden cell is determined by the totals exactly when its unit vector lies in the row space of the equations, where
    the projection onto that space leaves it as it is.
    """
    at = np.argwhere(hidden)
    equations = [at[:, 0] == r for r in range(hidden.shape[0])] * rows + [
        at[:, 1] == c for c in range(hidden.shape[1])
    ] * columns
    matrix = np.array(equations, float)
    projection = np.linalg.pinv(matrix) @ matrix
    return np.abs(np.diag(projection) - 1) > 1e-8


@given(counts_of_patients)
@settings(deadline=None, max_examples=300)
def test_no_hidden_cell_can_be_recovered_from_row_and_column_totals(counts):
    hidden = suppressed_cells(counts)
    assert hidden[(counts > 0) & (counts < MIN_CELL)].all()
    if hidden.any():
        assert solutions_move(hidden, rows=True, columns=True).all()


@given(counts_of_patients, st.booleans())
@settings(deadline=None, max_examples=100)
def test_nor_from_totals_of_one_direction(counts, rows):
    hidden = suppressed_cells(counts, has_row_totals=rows, has_column_totals=not rows)
    if hidden.any():
        assert solutions_move(hidden, rows=rows, columns=not rows).all()


def test_a_table_of_large_cells_is_shown_whole():
    assert not suppressed_cells(np.array([[10, 20], [0, 40]])).any()


def test_the_smallest_other_cell_goes_with_a_small_one():
    counts = np.array([[5, 30, 80]])
    np.testing.assert_array_equal(suppressed_cells(counts, has_column_totals=False), [[True, True, False]])


def test_two_small_cells_in_a_row_need_no_third():
    np.testing.assert_array_equal(suppressed_cells(np.array([[5, 6, 80]]), has_column_totals=False), [[True, True, False]])


def test_a_cell_between_two_hidden_blocks_is_protected_too():
    """Each row and column has two hidden cells, yet rows 1 and 2 minus columns 1 and 2 give the one cell between the blocks."""
    counts = np.full((4, 4), 50)
    counts[:2, :2] = counts[2:, 2:] = 3
    counts[1, 2] = 4
    assert suppressed_cells(counts).sum() > 9


def test_a_small_cell_alone_in_its_row_hides_a_zero():
    hidden = suppressed_cells(np.array([[5, 0, 0], [40, 50, 60], [70, 80, 90]]))
    assert hidden[0].sum() >= 2


def test_hidden_text_tells_small_from_hidden_and_shows_the_rest():
    text = suppress(pd.DataFrame([[5, 30, 1200]], columns=list("abc")), has_column_totals=False)
    assert text.iloc[0].tolist() == ["<10", "hidden", "1,200"]


def test_the_pages_table_does_not_give_a_small_group_away_by_its_share(report_inputs):
    """Shares add up to 100 %: of all groups but one, the last follows."""
    rows = [row for row in demographic_rows(report_inputs.used) if row["variable"] == "recorded race"]
    assert {row["group"]: row["total"] for row in rows}["ASIAN"] == "hidden"
    assert sum(row["total"] == "hidden" for row in rows) >= 2
    counts = with_totals(patients_by_group(report_inputs.used, "race"))
    assert counts.loc["ASIAN", "total"] == 6
    for row in rows:
        for split in ("train", "validation", "calibration", "test"):
            n = counts.loc[row["group"], split]
            assert row[split] in ("<10", "hidden", f"{n:,}")
            assert row[split] != str(n) or n == 0 or n >= MIN_CELL


def test_patients_are_counted_and_not_images(report_inputs):
    counts = patients_by_group(report_inputs.used, "sex")
    assert counts.to_numpy().sum() == report_inputs.used.table["patient_id"].nunique() == 200


def test_a_label_rate_of_under_ten_positive_patients_is_blank(report_inputs):
    rates = label_rates(report_inputs.used, "race")
    assert rates["ASIAN"].isna().all() and rates["WHITE"].notna().all()
    table, labels = report_inputs.used.table, report_inputs.used.labels
    own = labels[(table["race"] == "WHITE").to_numpy(), 1]
    assert rates.loc["Pleural Effusion", "WHITE"] == pytest.approx(np.nanmean(own))
