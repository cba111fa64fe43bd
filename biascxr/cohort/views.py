"""Augmented views: which images get some, and how each is turned, moved and lit. No image is read here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from biascxr.containers import UNKNOWN, VIEW_COLUMNS, Cohort, ViewPlan

SEPARATOR = "#view"  # an augmented view's own image_id: that of its image, this, and its number


def plan_views(
    cohort: Cohort,
    *,
    attributes: tuple[str, ...],
    max_views: int,
    min_cell: int,
    max_rotation: float,
    max_shift: float,
    max_contrast: float,
    max_brightness: float,
    seed: int,
) -> ViewPlan:
    """Plans views for the training images of under-represented cells: as many as bring the cell to the median cell size.

    Args:
        cohort: the rows; only those of the training split get views.
        attributes: attributes whose crossing makes the cells; those the cohort lacks are left out, as are unknown values.
        max_views: views of one image at most.
        min_cell: a cell with fewer images gets none and takes no part in the median.
        max_rotation: degrees, either way, drawn uniformly.
        max_shift: share of the side, in either direction along both axes.
        max_contrast: change of contrast at most: the factor lies in 1 - this to 1 + this.
        max_brightness: share of the grey range added or taken away at most.
        seed: seed of the draws; a view's are its own, whatever else is planned.

    Returns:
        The plan, in the cohort's order, views of an image together.
    """
    rows = cohort.split_rows("train")
    table = cohort.table.iloc[rows]
    used = [a for a in attributes if a in table]
    known = (table[used] != UNKNOWN).all(axis=1).to_numpy() if used else np.zeros(len(rows), bool)
    cells = table[used].astype(str).agg(SEPARATOR.join, axis=1).to_numpy(object) if used else np.full(len(rows), "", object)
    names, sizes = np.unique(cells[known].astype(str), return_counts=True)
    counted = sizes[sizes >= min_cell]
    n_views = np.zeros(len(rows), np.int64)
    if len(counted) >= 2:
        target = int(np.median(counted))
        for name, size in zip(names, sizes, strict=True):
            if min_cell <= size < target:
                n_views[known & (cells == name)] = min(max_views, -(-(target - size) // size))
    image_id = np.repeat(table["image_id"].to_numpy(object), n_views)
    view_id = np.concatenate([np.arange(1, n + 1) for n in n_views]) if n_views.any() else np.zeros(0, np.int64)
    draws = np.random.default_rng([seed, 61]).uniform(-1, 1, (len(rows), max(1, max_views), 5))
    own = draws[np.repeat(np.arange(len(rows)), n_views), view_id - 1] if len(view_id) else np.zeros((0, 5))
    limits = np.array([max_rotation, max_shift, max_shift, max_contrast, max_brightness])
    changes = own * limits + np.array([0, 0, 0, 1, 0])
    made = {"image_id": image_id, "view_id": view_id.astype(np.int32)}
    return ViewPlan(pd.DataFrame(made | dict(zip(VIEW_COLUMNS, changes.T, strict=True))))


def views_as_cohort(cohort: Cohort, plan: ViewPlan) -> Cohort:
    """Returns one row per planned view, as records and embeddings take rows: its image's row under an image_id of its own."""
    own = plan.table.reset_index(drop=True)
    position = pd.Index(cohort.table["image_id"]).get_indexer(own["image_id"])
    table = cohort.table.iloc[position].reset_index(drop=True).assign(**{c: own[c] for c in VIEW_COLUMNS})
    table["image_id"] = own["image_id"].astype(str) + SEPARATOR + own["view_id"].astype(str)
    return replace(cohort, table=table, labels=cohort.labels[position], recorded=None, reference_labels=None)


def image_and_view(view_image_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the image_id and view_id of views, from their own image_ids: `[n] object` and `[n] int32`."""
    parts = [text.rsplit(SEPARATOR, 1) for text in view_image_id]
    return np.array([p[0] for p in parts], object), np.array([int(p[1]) for p in parts], np.int32)
