"""No cell tells of fewer than ten patients, by itself or by subtraction; what is shown is where patients lie."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from biascxr.containers import Attribute, Cohort
from biascxr.leakage.panels import MIN_CELL, SIDES, SPAN, Grid, density_panels, shown_cells


def world(n_patients: int, *, d: int = 6, seed: int = 0):
    rng = np.random.default_rng(seed)
    patient = np.arange(2 * n_patients) // 2
    n = len(patient)
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)], "study_id": "s", "patient_id": [f"p{p}" for p in patient], "path": "x",
            "view": "PA", "age": 50.0,
            "race": rng.choice(["A", "B", "C", "unknown"], n_patients, p=[0.6, 0.3, 0.05, 0.05])[patient],
            "split": rng.choice(["train", "test"], n_patients)[patient],
        }
    )  # fmt: skip
    vectors = rng.normal(size=(n_patients, d))[patient] + 0.3 * rng.normal(size=(n, d))
    vectors[:, 0] += 3 * (table["race"] == "B")
    label = (rng.random((n, 1)) < 0.3).astype(np.float32)
    attributes = (Attribute("race", ("A", "B", "C"), True),)
    return Cohort(table, label, ("finding",), attributes, "x", "image", "."), (vectors * [4, 2, *[1] * (d - 2)]).astype(
        np.float32
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n", [30, 300, 3000])
def test_no_cell_tells_of_fewer_than_ten_patients_even_to_who_knows_everybody_in_it(n, seed):
    rng = np.random.default_rng(seed)
    points, codes = rng.normal(size=(n, 2)), rng.choice([0, 1, 2, -1], n, p=[0.6, 0.3, 0.05, 0.05])
    cells = pd.DataFrame(shown_cells(points, codes, "ABC"), columns=["group", "x", "y", "n_patients", "width_x"])
    assert (cells["n_patients"] >= MIN_CELL).all()
    if cells.empty:
        return
    side = round(2 * SPAN * points[:, 0].std() / cells["width_x"].iloc[0])
    assert side in SIDES
    grid = Grid.over(points, side)
    place = {tuple(np.round(grid.centre(cell), 9)): cell for cell in range(side * side)}
    shown = np.zeros((3, side * side), int)
    for group, x, y, count, _ in cells.itertuples(index=False):
        shown["ABC".index(group), place[tuple(np.round((x, y), 9))]] = count
    # An independent count of who is where: points lie within half a cell's width of the middle, or beyond the outermost.
    width = 2 * SPAN * points.std(0) / side
    edges = [np.r_[-np.inf, points[:, i].mean() + width[i] * (np.arange(1, side) - side / 2), np.inf] for i in range(2)]
    everybody = np.histogram2d(*points.T, bins=edges)[0].ravel().astype(int)
    for code in range(3):
        own = np.histogram2d(*points[codes == code].T, bins=edges)[0].ravel().astype(int)
        assert (shown[code] == own)[shown[code] > 0].all()
    left_out = everybody - shown.sum(0)
    told = left_out[shown.sum(0) > 0]
    assert ((told == 0) | (told >= MIN_CELL)).all()


def test_the_grid_is_the_finest_that_shows_four_patients_in_five():
    rng = np.random.default_rng(0)

    def side(n: int) -> int:
        points = rng.normal(size=(n, 2))
        cells = pd.DataFrame(shown_cells(points, np.zeros(n, int), ["A"]))
        share = cells["n_patients"].sum() / n
        found = round(2 * SPAN * points[:, 1].std() / cells["width_y"].iloc[0])
        assert share >= 0.8 or found == SIDES[-1]
        return found

    sides = [side(n) for n in (200, 600, 1500, 50_000)]
    assert sides == sorted(sides)
    assert (sides[0], sides[-1]) == (4, 24)


def test_points_beyond_the_grid_are_counted_in_its_outermost_cells_and_no_edge_is_a_patient():
    points = np.random.default_rng(0).normal(size=(5000, 2))
    points[0] = 100  # one patient far out moves the deviation, not the edge to itself
    grid = Grid.over(points, 6)
    assert grid.cells(points)[0] == 35
    assert (grid.low + 6 * grid.width < 99).all()


def test_panels_show_a_planted_group_apart_and_nobody_without_a_group():
    cohort, vectors = world(2500)
    found = pd.DataFrame(density_panels(cohort, vectors))
    assert set(found["method"]) == {"pca", "pca_3_4"}
    race = found.query("method == 'pca' and by == 'race'")
    centre = {g: np.average(own["x"], weights=own["n_patients"]) for g, own in race.groupby("group")}
    assert abs(centre["B"] - centre["A"]) > 4  # planted: 12 along the first mode
    assert "unknown" not in set(found["group"])
    assert set(found.query("kind == 'label'")["group"]) == {"negative", "positive"}
    n_known = cohort.table.query("race != 'unknown'")["patient_id"].nunique()
    assert 0.8 * n_known <= race["n_patients"].sum() <= n_known


def test_a_map_of_tsne_is_the_same_for_the_same_seed_and_takes_only_the_rows_asked_for():
    cohort, vectors = world(250)
    rows = cohort.split_rows("test")
    one, two = (pd.DataFrame(density_panels(cohort, vectors, rows=rows, has_tsne=True, seed=3)) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    tsne = one.query("method == 'tsne' and by == 'finding'")
    assert 0 < tsne["n_patients"].sum() <= cohort.table["patient_id"].iloc[rows].nunique()


def test_fewer_than_ten_patients_give_no_cell():
    cohort, vectors = world(9)
    assert density_panels(cohort, vectors, has_tsne=True) == []
