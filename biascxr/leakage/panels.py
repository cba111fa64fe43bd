"""The distribution view: how densely patients of each group lie, over two components or a t-SNE map, without any single point.

Each patient is the mean of its vectors. Counts on a fixed grid take the place of points, and cells that tell of fewer than ten
patients are left out, also where they would follow from what is shown.

Reference: Glocker et al., eBioMedicine 2023, whose scatter plots these replace; van der Maaten and Hinton, Visualizing data
using t-SNE, JMLR 2008.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biascxr.containers import Attribute, Cohort
from biascxr.leakage.modes import component_rows, groupings, leading_modes, mean_of_patients
from biascxr.mitigation.vector_table import VectorTable

MIN_CELL = 10  # patients; as in the report
SIDES = (24, 12, 8, 6, 4)  # cells a side, the finest first
SHOWN_SHARE = 0.8
SPAN = 2.5  # deviations about the mean: the outermost points themselves would give away single patients
PAIRS = {"pca": (0, 1), "pca_3_4": (2, 3)}
TSNE = "tsne"
TSNE_COMPONENTS, TSNE_PATIENTS, PERPLEXITY = 50, 5000, 30


@dataclass(frozen=True)
class Grid:
    """Square cells over two axes; what lies beyond falls into the outermost ones.

    Attributes:
        low: `[2]`, the lower corner.
        width: `[2]`, of a cell.
        side: cells a side.
    """

    low: np.ndarray
    width: np.ndarray
    side: int

    @classmethod
    def over(cls, points: np.ndarray, side: int) -> Grid:
        """Returns the grid about the mean of points `[p, 2]`."""
        mean, deviation = points.mean(0), points.std(0)
        deviation = np.where(deviation > 0, deviation, 1.0)
        return cls(mean - SPAN * deviation, 2 * SPAN * deviation / side, side)

    def cells(self, points: np.ndarray) -> np.ndarray:
        """Returns the number of each point's cell, `[p] int64`, 0 to side^2 - 1."""
        x, y = np.clip((points - self.low) // self.width, 0, self.side - 1).astype(np.int64).T
        return x * self.side + y

    def centre(self, cell: int) -> np.ndarray:
        """Returns a cell's middle, `[2]`."""
        return self.low + (np.array(divmod(cell, self.side)) + 0.5) * self.width


def density_panels(
    cohort: Cohort,
    vectors: np.ndarray,
    *,
    attributes: Sequence[Attribute] | None = None,
    rows: np.ndarray | None = None,
    has_tsne: bool = False,
    seed: int = 0,
) -> list[dict]:
    """Counts the patients of each group, and of each label value, in cells over leading modes and a t-SNE map.

    Args:
        cohort: attributes, findings and split; components are those of its training rows.
        vectors: `[n, d]`, one per row of the cohort.
        attributes: default, the cohort's.
        rows: row numbers that patients are taken from; default all.
        has_tsne: also a t-SNE map (scikit-learn's, of 50 leading components, at most 5,000 patients drawn by the seed).
        seed: of t-SNE and of that draw.

    Returns:
        Rows of `panels.csv`: method "pca" (modes 1 and 2), "pca_3_4" (modes 3 and 4) or "tsne"; x and y are the middle of the
        cell; and `width_x`, `width_y`, its size, to draw it by. A grouping has the finest grid that shows four patients in
        five, the coarsest where none does.
    """
    train = component_rows(cohort)
    rows = np.arange(len(cohort)) if rows is None else rows
    if len(train) < 2 or len(rows) == 0:
        return []
    patient = cohort.table["patient_id"].to_numpy(object).astype(str)
    _, numbers = np.unique(patient[rows], return_inverse=True)
    modes = leading_modes(vectors, train, n_modes=TSNE_COMPONENTS)
    points = mean_of_patients(modes.of(VectorTable.of(vectors)[rows]), numbers)
    everyone = np.arange(len(points))
    maps = {method: (everyone, points[:, pair]) for method, pair in PAIRS.items() if points.shape[1] > max(pair)}
    if has_tsne and len(points) >= MIN_CELL:
        drawn = everyone
        if len(points) > TSNE_PATIENTS:
            drawn = np.sort(np.random.default_rng(seed).choice(len(points), TSNE_PATIENTS, replace=False))
        maps[TSNE] = (drawn, tsne_map(points[drawn], seed=seed))
    found = []
    for grouping in groupings(cohort, attributes):
        codes = grouping.of_patients(rows, numbers)
        for method, (patients, placed) in maps.items():
            common = {"method": method, "kind": grouping.kind, "by": grouping.by}
            found += [common | cell for cell in shown_cells(placed, codes[patients], grouping.groups)]
    return found


def tsne_map(points: np.ndarray, *, seed: int) -> np.ndarray:
    """Returns a t-SNE map `[p, 2]` of points `[p, k]`, begun from their principal components."""
    from sklearn.manifold import TSNE as Tsne

    method = Tsne(perplexity=min(PERPLEXITY, (len(points) - 1) / 3), init="pca", random_state=seed)
    return method.fit_transform(points.astype(np.float32)).astype(np.float64)


def shown_cells(points: np.ndarray, codes: np.ndarray, groups: Sequence[str]) -> list[dict]:
    """Counts patients per cell and group, on the finest grid that shows enough of them, and leaves small counts out.

    Args:
        points: `[p, 2]`, a patient each.
        codes: `[p]`, group of each; -1 where it is not known: those are counted nowhere.
        groups: names.

    Returns:
        `group, x, y, n_patients` of each cell shown, and its `width_x` and `width_y`.
    """
    n_known = (codes >= 0).sum()
    for side in SIDES:
        grid = Grid.over(points, side)
        counts = np.zeros((len(groups) + 1, side * side), np.int64)  # the last line: group not known
        np.add.at(counts, (codes, grid.cells(points)), 1)
        shown = _may_be_shown(counts)
        if counts[shown].sum() >= SHOWN_SHARE * n_known:
            break
    widths = dict(zip(("width_x", "width_y"), grid.width.tolist(), strict=True))
    return [
        {"group": groups[group], "x": x, "y": y, "n_patients": int(counts[group, cell])} | widths
        for group, cell in np.argwhere(shown)
        for x, y in (grid.centre(cell).tolist(),)
    ]


def _may_be_shown(counts: np.ndarray) -> np.ndarray:
    """Finds the counts that tell of ten patients at least, by themselves and by subtraction.

    Another grouping may show everybody in a cell; what is left out of it here must then not be fewer than ten patients, or
    they would be known by subtraction. Where they would, the smallest count shown in that cell is left out too.

    Args:
        counts: `[groups + 1, cells]`; the last line is never shown.

    Returns:
        `[groups + 1, cells] bool`.
    """
    shown = counts >= MIN_CELL
    shown[-1] = False
    hidden = np.where(shown, 0, counts).sum(0)
    sizes = np.where(shown, counts, np.iinfo(np.int64).max)
    for cell in np.flatnonzero((hidden > 0) & (hidden < MIN_CELL) & shown.any(0)):
        shown[sizes[:, cell].argmin(), cell] = False
    return shown
